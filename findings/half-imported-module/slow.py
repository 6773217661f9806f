"""Stands for a module that takes a moment to import, such as `encodings.idna`, which every look-up of a host needs."""

import time

time.sleep(1)
ANSWER = b"ok\n"
