#!/bin/sh
# Counts the turns of a greenlet in the master for five seconds: exit 1 while it starves, 0 when it does not.
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
rm -f ticks ready
"$PYTHON" -m gunicorn -c gunicorn.conf.py app:app &
master=$!
trap 'kill "$master" 2>/dev/null; wait "$master"; rm -f ticks ready' EXIT

for _ in $(seq 100); do
    [ -e ready ] && break
    sleep 0.1
done
[ -e ready ] || { echo "the server did not boot"; exit 2; }
: >ticks
sleep 5
turns=$(wc -c <ticks)
if [ "$turns" -ge 25 ]; then
    echo "fixed: $turns turns of 50 in the master"
    exit 0
fi
echo "BUG: $turns turns of 50 in the master"
exit 1
