#!/bin/sh
# Sends TERM to the master as soon as its only worker has been forked, and measures how long the server takes to end
# (graceful_timeout: 10 s, no request is under way): exit 1 while the bug is there, 0 when it is not.
#   ./reproduce.sh [gevent|sync|gthread]
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
class="${1:-gevent}"
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
rm -f booting
"$PYTHON" -m gunicorn -c gunicorn.conf.py -k "$class" app:app &
master=$!
trap 'kill -9 "$master" $(cat booting 2>/dev/null) 2>/dev/null; rm -f booting' EXIT

for _ in $(seq 1000); do
    [ -s booting ] && break
    sleep 0.01
done
[ -s booting ] || { echo "no worker was forked"; exit 2; }
before=$(date +%s)
kill -TERM "$master"
wait "$master"
seconds=$(($(date +%s) - before))
if [ "$seconds" -ge 9 ]; then
    echo "BUG: an idle server took $seconds s to end"
    exit 1
fi
echo "fixed: the server took $seconds s to end"
