#!/bin/sh
# Asks a worker that was forked while a thread of the master was in an import: exit 1 while the bug is there, 0 when not.
#   ./reproduce.sh [sync|gthread|gevent]
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
cd "$(dirname "$0")" || exit 2
class="${1:-sync}"
if [ -z "$PYTHON" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
rm -f address
"$PYTHON" -m gunicorn -c gunicorn.conf.py -k "$class" app:app &
master=$!
trap 'kill -9 "$master" 2>/dev/null; rm -f address' EXIT
for _ in $(seq 100); do
    [ -s address ] && break
    sleep 0.1
done
[ -s address ] || { echo "the server did not boot"; exit 2; }

"$PYTHON" - "$(cat address)" <<'PY'
import sys, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=5).read()
except OSError as error:
    print("BUG: a request got:", error)
    sys.exit(1)
print("fixed: a request got:", answer)
PY
bug=$?
before=$(date +%s)
kill "$master"
wait "$master"
echo "the server stopped $(($(date +%s) - before)) s after TERM (graceful_timeout: 5 s)"
exit $bug
