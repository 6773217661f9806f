"""What `python -m gunicorn` does, as a script, so that `python -m gevent.monkey` can run it too."""

from gunicorn.app.wsgiapp import run

run()
