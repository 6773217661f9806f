"""One holder at a time, through Redis: what keeps a loop to one place that is started in several processes.

`lock` is redis-py's own `Lock` without a timeout: whoever has it keeps it, and who dies with it has it for ever.
`lease` is the lock of Redis' documentation, a key that is set if it is not there and that expires, renewed by its
holder: https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/. Redis' own scripts are not used, since
not every Redis runs them: a transaction does the same.
"""

import time

from forkproof_payload import probe

TRY_EVERY = 0.05
LEASE = 1.0
"""Seconds that a lease lasts: a holder that is stopped for longer loses it, and waits."""

# By name, once: a later patch must not reach the clock.
_monotonic = time.monotonic


class Guard(object):
    """The lock or lease of one loop in one process."""

    def __init__(self, kind, broker, channel, pause):
        self._kind = kind
        self._broker = broker
        self._key = channel + ":guard"
        self._pause = pause
        self._token = None
        self._client = None
        self._renewed = 0.0

    def wait(self):
        """Return once this process holds it."""
        import redis

        if self._client is None:
            # Made by the holder itself: a connection that a fork shares is a fault of its own.
            self._client = redis.Redis(**self._broker)
        if self._kind == "lock":
            # Before 3.0 redis-py takes one that runs scripts, unless it is told.
            lock = self._client.lock(self._key, sleep=TRY_EVERY, lock_class=redis.lock.Lock)
            while not lock.acquire(blocking=False):
                self._pause()
            return
        self._token = probe.key()
        while not self._take():
            self._pause()

    def renewing(self, give_way):
        """A yield that keeps the lease alive, and comes back only when this process holds it."""
        if self._kind == "lock":
            return give_way

        def renew():
            give_way()
            age = _monotonic() - self._renewed
            # Renewed in time, or, where the time is nearly up and another may have it by now, waited for.
            if age > 0.8 * LEASE or (age > 0.25 * LEASE and not self._renew()):
                self.wait()

        return renew

    def _take(self):
        asked = _monotonic()
        if not self._client.set(self._key, self._token, nx=True, px=int(LEASE * 1000)):
            return self._renew()
        self._renewed = asked
        return True

    def _renew(self):
        from redis.exceptions import WatchError

        asked = _monotonic()
        with self._client.pipeline() as pipeline:
            pipeline.watch(self._key)
            if pipeline.get(self._key) != self._token.encode("ascii"):
                return False
            pipeline.multi()
            pipeline.pexpire(self._key, int(LEASE * 1000))
            try:
                pipeline.execute()
            except WatchError:
                return False
        self._renewed = asked
        return True
