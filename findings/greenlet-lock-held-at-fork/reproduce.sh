#!/bin/sh
# Ends a worker again and again, and gives each 5 s for it: exit 1 while the bug is there (it takes some hundred), 0 when not.
#   ./reproduce.sh [HOW OFTEN]
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
often="${1:-1000}"
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
"$PYTHON" -m gunicorn -c gunicorn.conf.py --log-file server.log --control-socket "$PWD/control" app:app &
master=$!
workers() { cat "/proc/$master/task/$master/children" 2>/dev/null; }
trap 'kill -9 "$master" $(workers) 2>/dev/null; rm -f server.log control' EXIT

for number in $(seq "$often"); do
    for _ in $(seq 150); do
        # Two that have booted: gunicorn has gone on to handle signals.
        [ "$(workers | wc -w)" -eq 2 ] && break
        sleep 0.1
    done
    [ "$(workers | wc -w)" -eq 2 ] || { echo "the server does not have its workers"; exit 2; }
    sleep 0.2
    set -- $(workers)
    kill -TERM "$1"
    for _ in $(seq 100); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.05
    done
    if kill -0 "$1" 2>/dev/null; then
        echo "BUG: worker $number (pid $1) has exited and never ends"
        exit 1
    fi
done
echo "fixed: each of $often workers ended"
exit 0
