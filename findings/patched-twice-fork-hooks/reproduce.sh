#!/bin/sh
# Boots one worker and looks at what the server printed: exit 1 while the bug is there, 0 when it is not.
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
rm -f workers log
"$PYTHON" -m gunicorn -c gunicorn.conf.py app:app 2>log &
master=$!
trap 'kill "$master" 2>/dev/null; wait "$master"; rm -f workers log' EXIT

for _ in $(seq 100); do
    [ -s workers ] && break
    sleep 0.1
done
[ -s workers ] || { cat log; echo "the server did not boot"; exit 2; }
if grep -A 12 "Exception ignored in: <bound method _ForkHooks.after_fork_in_child" log; then
    echo "BUG: a hook of os.fork failed in the worker"
    exit 1
fi
echo "fixed: the worker was forked without a word"
