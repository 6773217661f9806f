"""What gevent has put in place of what in this process, told without importing what was not imported.

gevent keeps what it replaces in `gevent.monkey.saved`: {module: {name: original}}. A name is `patched` where the module
now has something else, `removed` where it has nothing, `original` where it was never replaced or has its original back.

Does not see: what a class, a closure or an instance holds, unless it is asked about that one (`native_parts`).
"""

import sys
import types

NAMES = (
    "_thread.start_new_thread", "threading.Lock", "threading.Thread", "threading.Event", "time.sleep", "socket.socket",
    "socket.getaddrinfo", "select.select", "select.epoll", "ssl.SSLContext", "subprocess.Popen", "os.fork",
    "signal.signal", "queue.SimpleQueue", "queue.Queue",
)
"""What tells, for each keyword of `patch_all` that patches anything on Python 3."""

_DEPTH = 4
_MOST = 200


def saved():
    """What gevent has replaced; nothing where it was never imported."""
    found = {}
    for monkey in (sys.modules.get("gevent.monkey"), _run_as_program()):
        for name, items in getattr(monkey, "saved", {}).items():
            if isinstance(items, dict) and name in sys.modules:
                found[name] = dict(found.get(name, {}), **items)
    return found


def _run_as_program():
    """`__main__` where it is gevent's: `python -m gevent.monkey` of gevent 1.2 patches as that, and is first."""
    main = sys.modules.get("__main__")
    code = getattr(getattr(main, "patch_all", None), "__code__", None)
    return main if code and code.co_filename.endswith("/gevent/monkey.py") else None


def keywords():
    """The keywords of this gevent's `patch_all`; none where gevent was never imported."""
    monkey = sys.modules.get("gevent.monkey")
    code = getattr(getattr(monkey, "patch_all", None), "__code__", None)
    return list(code.co_varnames[:code.co_argcount]) if code else []


def off():
    """Those of the keywords that this gevent takes for False where nobody says anything: `Event` was one until 1.3."""
    monkey = sys.modules.get("gevent.monkey")
    defaults = getattr(getattr(monkey, "patch_all", None), "__defaults__", None) or ()
    names = keywords()
    first = len(names) - len(defaults)
    return [names[first + number] for number, default in enumerate(defaults) if default is False]


def states():
    """{name: `patched`, `removed` or `original`} of those of `NAMES` whose module is imported and has, or had, them."""
    replaced = saved()
    found = {}
    for name in NAMES:
        module, _, attribute = name.rpartition(".")
        if module in sys.modules:
            now = vars(sys.modules[module])
            before = replaced.get(module, {})
            if attribute in before and attribute not in now:
                found[name] = "removed"
            elif attribute in before and now[attribute] is not before[attribute]:
                found[name] = "patched"
            elif attribute in now:
                found[name] = "original"
    return found


def stale_names():
    """Names in modules of neither gevent nor the standard library that still mean an original: [name, original]."""
    originals = {}
    for module, items in saved().items():
        for attribute, item in items.items():
            if callable(item):
                originals.setdefault(id(item), "{}.{}".format(module, attribute))
    library = types.__file__.rpartition("/")[0]
    found = []
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__dict__", {}).get("__file__") or ""
        if not path or name.startswith("gevent.") or (path.startswith(library) and "-packages" not in path):
            continue
        names = dict(vars(module))
        # Most modules have none, and are through with one look.
        if originals.keys() & set(map(id, names.values())):
            found += [
                ["{}.{}".format(name, attribute), originals[id(value)]]
                for attribute, value in names.items()
                if id(value) in originals
            ]
    return sorted(found)


def native_parts(thing):
    """The locks, queues and sockets in an object that gevent would make otherwise since it has patched: [path, kind].

    Looked into are instances' attributes and lists, a few levels deep; nothing of the object's own is called.
    """
    kinds = _native_kinds()
    found, seen = [], set()
    todo = [("", thing, 0)]
    while todo and len(seen) < _MOST:
        path, part, depth = todo.pop(0)
        if id(part) in seen or isinstance(part, (type, types.ModuleType, types.FunctionType)):
            continue
        seen.add(id(part))
        kind = next((kind for kind, classes in kinds if isinstance(part, classes)), None)
        if kind is not None:
            found.append([path, kind])
        elif depth < _DEPTH:
            todo += [(where, inner, depth + 1) for where, inner in _inside(path, part)]
    return sorted(found)


def _inside(path, part):
    if isinstance(part, (list, tuple, set)):
        return [("{}[]".format(path), inner) for inner in part]
    if isinstance(part, dict):
        return [("{}[]".format(path), inner) for inner in part.values()]
    attributes = getattr(part, "__dict__", None)
    if not isinstance(attributes, dict):
        return []
    return [("{}.{}".format(path, name), inner) for name, inner in attributes.items()]


def _native_kinds():
    """(kind, classes) of what gevent has replaced in this process."""
    replaced = saved()
    kinds = []
    lock = replaced.get("_thread", {}).get("allocate_lock")
    if lock is not None:
        classes = [type(lock())]
        rlock = replaced.get("threading", {}).get("_CRLock")
        if isinstance(rlock, type):
            classes.append(rlock)
        kinds.append(("lock", tuple(classes)))
    queues = [item for item in replaced.get("queue", {}).values() if isinstance(item, type)]
    if queues:
        kinds.append(("queue", tuple(queues)))
    socket = replaced.get("socket", {}).get("socket")
    if isinstance(socket, type):
        kinds.append(("socket", (socket,)))
    return kinds


def in_greenlet():
    """Whether the caller runs in a greenlet other than its native thread's main one."""
    greenlet = sys.modules.get("greenlet")
    return greenlet is not None and greenlet.getcurrent().parent is not None
