#!/bin/sh
# Forks a worker while a thread of the app is in a log record, and waits 5 s for that thread's turns in the worker:
# exit 1 while the bug is there, 0 when it is not.
#   ./reproduce.sh [gevent|sync]
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
class="${1:-gevent}"
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
rm -f workers turns
"$PYTHON" -m gunicorn -c gunicorn.conf.py -k "$class" app:app &
master=$!
trap 'kill -9 "$master" $(cat workers 2>/dev/null) 2>/dev/null; rm -f workers turns' EXIT

for _ in $(seq 150); do
    [ -s workers ] && break
    sleep 0.1
done
[ -s workers ] || { echo "the server did not boot"; exit 2; }
worker=$(cat workers)
for _ in $(seq 50); do
    if [ "$(grep -c "^$worker$" turns 2>/dev/null)" -gt 1 ] 2>/dev/null; then
        echo "fixed: the thread has its turns in the worker (pid $worker)"
        exit 0
    fi
    sleep 0.1
done
echo "BUG: the copied thread is gone from the worker (pid $worker)"
exit 1
