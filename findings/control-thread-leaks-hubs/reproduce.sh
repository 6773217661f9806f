#!/bin/sh
# Kills the worker again and again, as max_requests would end it, in a server that may have 64 descriptors open: exit 1
# while the master dies of it or keeps more and more of them, 0 when not.
#   ./reproduce.sh [sync|gthread|gevent]
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
class="${1:-sync}"
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
rm -f workers
ulimit -n 64
"$PYTHON" -m gunicorn -c gunicorn.conf.py -k "$class" app:app &
master=$!
trap 'kill -9 "$master" $(cat workers 2>/dev/null) 2>/dev/null; rm -f workers control.sock' EXIT

lines() { wc -l 2>/dev/null <workers || echo 0; }
open_files() { ls "/proc/$master/fd" 2>/dev/null | wc -l; }
wait_for() { # wait until N workers have booted, at most 10 s
    for _ in $(seq 100); do
        [ "$(lines)" -ge "$1" ] && return 0
        sleep 0.1
    done
    return 1
}

wait_for 1 || { echo "the server did not boot"; exit 2; }
sleep 1 # the control socket is made after the first workers
before=$(open_files)
for worker in $(seq 1 30); do
    kill -9 "$(tail -n 1 workers)"
    if ! wait_for $((worker + 1)); then
        wait "$master"
        # 134 is SIGABRT: libev gave up. 3 is gunicorn's own: a worker had no descriptor left to boot with.
        echo "BUG: the master ended with status $? after $worker workers; it had $before files open at first"
        exit 1
    fi
    sleep 0.3
done
after=$(open_files)
if [ "$after" -ge $((before + 10)) ]; then
    echo "BUG: $before files open in the master at first, $after after 30 workers"
    exit 1
fi
echo "fixed: $before files open in the master at first, $after after 30 workers"
