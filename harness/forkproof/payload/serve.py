"""What the script `gunicorn` does: `python -m gevent.monkey` runs it; multiprocessing imports it in its children."""

import os

if __name__ == "__main__" and "FORKPROOF_NEST" in os.environ:
    from forkproof_payload import nest

    nest.wait(os.environ["FORKPROOF_NEST"])
    del nest

from gunicorn.app.wsgiapp import run

if __name__ == "__main__":
    run()
