#!/bin/sh
# Stops a server that has one daemonic process in the background, and waits 15 s for its end (graceful_timeout: 5 s):
# exit 1 while the bug is there, 0 when it is not. START says who starts that process:
#   ./reproduce.sh when_ready      a hook of the master: the master never ends
#   ./reproduce.sh first_request   the worker: it has to be killed, and leaves the process behind
#   ./reproduce.sh on_starting     a hook of the master before it has signal handlers: sound
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
export START="${1:-when_ready}"
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
rm -f address listener
"$PYTHON" -m gunicorn -c gunicorn.conf.py -k "${CLASS:-sync}" app:app &
master=$!
trap 'kill -9 "$master" $(cat listener 2>/dev/null) 2>/dev/null; rm -f address listener' EXIT

for _ in $(seq 100); do
    [ -s address ] && break
    sleep 0.1
done
[ -s address ] || { echo "the server did not boot"; exit 2; }
"$PYTHON" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5).read()' "$(cat address)" || exit 2

# 0 when a process runs; a zombie does not.
runs() { state=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1) && [ -n "$state" ] && [ "$state" != Z ]; }

listener=$(cat listener)
runs "$listener" || { echo "no listener"; exit 2; }
before=$(date +%s)
kill -TERM "$master"
for _ in $(seq 150); do
    runs "$master" || break
    sleep 0.1
done
if runs "$master"; then
    echo "BUG: the server still runs 15 s after TERM"
    exit 1
fi
echo "the server stopped $(($(date +%s) - before)) s after TERM"
if runs "$listener"; then
    echo "BUG: the listener (pid $listener) still runs, as a child of $(cut -d' ' -f4 "/proc/$listener/stat")"
    exit 1
fi
echo "fixed: nothing is left"
