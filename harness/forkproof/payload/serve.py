"""What the script `gunicorn` does: `python -m gevent.monkey` runs it; multiprocessing imports it in its children."""

from gunicorn.app.wsgiapp import run

if __name__ == "__main__":
    run()
