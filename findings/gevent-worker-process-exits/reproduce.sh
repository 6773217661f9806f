#!/bin/sh
# Has a request start a process, and looks for 5 s whether the worker's own code runs in it:
# exit 1 while the bug is there, 0 when it is not.
#   ./reproduce.sh [gevent|gevent_pywsgi|sync|gthread]
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
class="${1:-gevent}"
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
rm -f address listener workers hooks
"$PYTHON" -m gunicorn -c gunicorn.conf.py -k "$class" app:app &
master=$!
trap 'kill -9 "$master" $(cat workers listener 2>/dev/null) 2>/dev/null; rm -f address listener workers hooks' EXIT

for _ in $(seq 150); do
    [ -s workers ] && break
    sleep 0.1
done
[ -s workers ] || { echo "the server did not boot"; exit 2; }
"$PYTHON" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5).read()' "$(cat address)" || exit 2
[ -s listener ] || { echo "no process was started"; exit 2; }

# 0 when a process runs; a zombie does not.
runs() { state=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1) && [ -n "$state" ] && [ "$state" != Z ]; }

for _ in $(seq 50); do
    if [ -s hooks ] || ! runs "$(cat listener)"; then
        runs "$(cat listener)" || echo "the process (pid $(cat listener)) has ended"
        cat hooks 2>/dev/null
        echo "BUG: the process ran the code of the worker"
        exit 1
    fi
    sleep 0.1
done
echo "fixed: the process runs, and nothing else in it"
