#!/bin/sh
# Boots a server whose app forks a child that ends at once, and waits for it: exit 1 while the bug is there, 0 when it is not.
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
rm -f ready
setsid "$PYTHON" -m gunicorn -c gunicorn.conf.py app:app &
master=$!
trap 'kill -9 "-$master" 2>/dev/null; rm -f ready' EXIT

for _ in $(seq 100); do
    [ -f ready ] && break
    sleep 0.1
done
if [ -f ready ]; then
    echo "fixed: the server is up"
    exit 0
fi
ps -o pid,ppid,stat,wchan,args --ppid "$master"
echo "BUG: no server 10 s after its start"
exit 1
