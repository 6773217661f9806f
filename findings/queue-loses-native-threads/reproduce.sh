#!/bin/sh
# Sends twelve requests, one by one, to a gthread worker: exit 1 while the bug is there, 0 when not.
#   ./reproduce.sh [THREADS]
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
rm -f address
"$PYTHON" -m gunicorn -c gunicorn.conf.py --threads "${1:-2}" app:app &
master=$!
trap 'kill "$master" 2>/dev/null; wait "$master"; rm -f address' EXIT
for _ in $(seq 100); do
    [ -s address ] && break
    sleep 0.1
done
[ -s address ] || { echo "the server did not boot"; exit 2; }

"$PYTHON" - "$(cat address)" <<'PY'
import sys, urllib.request
for request in range(1, 13):
    try:
        urllib.request.urlopen(sys.argv[1], timeout=3).read()
    except OSError as error:
        print("BUG: request", request, "got:", error)
        sys.exit(1)
print("fixed: twelve requests were answered")
PY
