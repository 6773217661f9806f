#!/bin/sh
# Has the master stop one of its two workers (TTOU) and looks after the listener, which is the master's child:
# exit 1 while the bug is there, 0 when it is not.
#   ./reproduce.sh [sync|gthread|gevent]
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
class="${1:-sync}"
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
rm -f workers listener
"$PYTHON" -m gunicorn -c gunicorn.conf.py -k "$class" app:app &
master=$!
trap 'kill -9 "$master" $(cat workers listener 2>/dev/null) 2>/dev/null; rm -f workers listener' EXIT

for _ in $(seq 100); do
    [ "$(wc -l 2>/dev/null <workers || echo 0)" -ge 2 ] && break
    sleep 0.1
done
[ "$(wc -l 2>/dev/null <workers || echo 0)" -ge 2 ] || { echo "the server did not boot"; exit 2; }

# 0 when the listener runs; a zombie does not.
runs() { state=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1) && [ -n "$state" ] && [ "$state" != Z ]; }

listener=$(cat listener)
runs "$listener" || { echo "the listener did not start"; exit 2; }
kill -TTOU "$master"
for _ in $(seq 50); do
    if ! runs "$listener"; then
        echo "BUG: a worker left, and with it the listener of the master (pid $listener)"
        exit 1
    fi
    sleep 0.1
done
echo "fixed: the listener still runs 5 s after a worker has left"
