"""The code inside the server under test.

It is imported by the target alone: standard library only, Python 3.6 and later, and gevent, flask and redis only where
the scenario says so. What its modules import at their top must be neutral: nothing that `gevent.monkey` patches.
"""
