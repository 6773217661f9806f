#!/bin/sh
# Kills the only worker and waits 10 s for another one: exit 1 while the bug is there, 0 when it is not.
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
rm -f workers
"$PYTHON" -m gunicorn -c gunicorn.conf.py app:app &
master=$!
trap 'kill -9 "$master" $(cat workers 2>/dev/null) 2>/dev/null; rm -f workers' EXIT

lines() { wc -l 2>/dev/null <workers || echo 0; }
wait_for() { # wait until N workers have booted, at most 10 s
    for _ in $(seq 100); do
        [ "$(lines)" -ge "$1" ] && return 0
        sleep 0.1
    done
    return 1
}

wait_for 1 || { echo "the server did not boot"; exit 2; }
sleep 1 # until the master, too, is done with its boot: up to 0.1 s of that is a cooperative sleep
kill -9 "$(cat workers)"
if wait_for 2; then
    echo "fixed: the worker was replaced"
    exit 0
fi
echo "BUG: no worker 10 s after the only one was killed"
exit 1
