"""What a fork leaves in the child of threads that did not survive it.

Python's at-fork hooks tell of every fork; where it has none (3.6), gunicorn's hooks tell of its workers. In the parent,
just before: which native threads there are besides the one that forks. In the child, first thing, and only if there
were any: which modules they were in the middle of importing, and which locks are held that a module, or an object in a
module, has by name. Python's own repairs (logging's locks, the standard streams) have been done by then.

Does not see: locks in deeper objects, those inside of C code such as an io.BufferedWriter's, and forks by C code.
"""

import itertools
import operator
import os
import sys

from forkproof_payload import parking, probe

ARE_TOLD = hasattr(os, "register_at_fork")
"""Whether Python tells of forks."""

_beside = []


def look_around():
    """In the parent, before a fork: the native threads besides this one, and where they stand."""
    del _beside[:]
    here = probe.native_thread_id()
    others = [task for task in os.listdir("/proc/self/task") if int(task) != here]
    if not others:
        return
    import _thread

    me = _native(_thread, "get_ident")()
    names = _thread_names()
    for ident, line, name, path in _stands():
        if ident != me:
            place = "{}:{} in {}".format(path, line, name)
            _beside.append({"thread": names.get(ident), "at": place})
    while len(_beside) < len(others):
        _beside.append({"thread": None, "at": None})  # it runs no Python code


def _stands():
    """(ident, line, function, file) of each native thread's innermost call.

    Whoever has a thread's frames at hand has their locals as well, and the last one to let go of an object ends it. So
    no other thread may run as long as we have them: only C code touches them, which never hands over in between.
    """
    frames = itertools.chain.from_iterable(map(dict.items, itertools.starmap(sys._current_frames, ((),))))
    told = list(itertools.starmap("{0} {1.f_lineno} {1.f_code.co_name} {1.f_code.co_filename}".format, frames))
    for text in told:
        ident, line, name, path = text.split(" ", 3)
        if (path, name) in parking.HOLDING:
            yield _stands_parked(int(ident))
        else:
            yield int(ident), line, name, path


def _stands_parked(ident):
    """The same of a parked thread, which goes nowhere: what holds it there is ours, and left out."""
    frame = next(map(operator.itemgetter(ident), itertools.starmap(sys._current_frames, ((),))))
    while frame.f_back is not None and (frame.f_code.co_filename, frame.f_code.co_name) in parking.HOLDING:
        frame = frame.f_back
    return ident, frame.f_lineno, frame.f_code.co_name, frame.f_code.co_filename


def take_stock():
    """In the child, after a fork."""
    imports, locks = (_imports(), _locks()) if _beside else ([], [])
    probe.event("fork", parent=os.getppid(), beside=list(_beside), imports=imports, locks=locks)


def _native(module, name):
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module.__name__, name) if monkey else getattr(module, name)


def _thread_names():
    threading = sys.modules.get("threading")
    return {} if threading is None else {ident: thread.name for ident, thread in list(threading._active.items())}


def _imports():
    """Modules whose lock is held by nobody who lives here."""
    import _thread

    me = _thread.get_ident()  # greenlets have their own, where threads are greenlets
    found = []
    for name, reference in list(sys.modules["_frozen_importlib"]._module_locks.items()):
        lock = reference()
        owner = getattr(lock, "owner", None)
        if owner is not None and owner != me and not _greenlet_of_ours(owner):
            found.append(name)
    return sorted(found)


def _greenlet_of_ours(ident):
    """Whether a fork has copied the greenlet of that ident: it belongs to the thread that forked."""
    if "greenlet" not in sys.modules:
        return False
    import gc

    greenlet = sys.modules["greenlet"]
    ours = _root(greenlet.getcurrent())
    return any(
        id(item) == ident and _root(item) is ours
        for item in gc.get_objects()
        if isinstance(item, greenlet.greenlet)
    )


def _root(item):
    while item.parent is not None:
        item = item.parent
    return item


# Taken by the thread that forks, and renewed later than we look.
_PYTHONS_OWN = ("concurrent.futures.thread._global_shutdown_lock",)

_MOST = 100
"""A dict of more attributes than this is no object's."""


def _locks():
    """Names of what holds a lock that is held: a module's name that is one, or that is an object with one.

    Nothing is asked of the objects themselves: a proxy would run its own code.
    """
    import _thread
    import gc

    plain = type(_native(_thread, "allocate_lock")())
    reentrant = type(_thread.RLock())
    me = "owner={} ".format(_native(_thread, "get_ident")())
    threading = sys.modules.get("threading")
    # Classes have no lock of their own, and a thread's says that it lives.
    passed_over = (type,) if threading is None else (type, threading.Thread)
    by_kind = {plain: True, reentrant: True, type(_native): False, dict: False}

    def held(value):
        if type(value) is plain:
            return value.locked()
        if type(value) is not reentrant:
            return False
        text = repr(value)
        return text.startswith("<locked") and me not in text

    def within(value):
        for item in gc.get_referents(value):
            if type(item) is not dict:
                yield item
            elif len(item) <= _MOST:
                for inner in item.values():
                    yield inner

    found = set()
    for module_name, module in list(sys.modules.items()):
        if type(module) is not type(os):
            continue
        for name, value in list(module.__dict__.items()):
            kind = type(value)
            looked_at = by_kind.get(kind)
            if looked_at is None:
                # What is made in C without a heap type is no object with attributes.
                heap = kind.__flags__ & 1 << 9
                looked_at = by_kind[kind] = bool(heap) and not any(other in kind.__mro__ for other in passed_over)
            if looked_at and (held(value) or any(map(held, within(value)))):
                found.add("{}.{}".format(module_name, name))
    return sorted(found.difference(_PYTHONS_OWN))
