"""Starts gunicorn without its command: `in_code.py CONFIG MODULE:APP`, run by the target's interpreter.

The settings and hooks of CONFIG are those of the run: it learns by them which process is what.
"""

import runpy
import sys

from gunicorn.app.base import BaseApplication
from gunicorn.util import import_app


class Application(BaseApplication):
    def __init__(self, config, app):
        self.file = config
        self.app = app
        BaseApplication.__init__(self)

    def load_config(self):
        for name, value in runpy.run_path(self.file).items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self):
        return import_app(self.app)


if __name__ == "__main__":
    Application(*sys.argv[1:3]).run()
