"""Watches an app that knows nothing of it: which background loops it creates, and how each fares in each process.

Creation is wrapped (`threading.Thread.start`, `multiprocessing` processes, forks); of greenlets gevent tells, and keeps
where each was spawned. A look is asked for by a signal: the handler runs in the main thread between two bytecodes,
reads, writes one event and returns. It takes no lock, starts no thread, switches no greenlet, asks no object anything
that runs code of the app.

Nor does it keep alive what it looks at: whoever has another thread's frames, or all objects, may be the last to let go
of one of them, and would end it in the wrong thread. So those are touched by single calls of C code alone, during which
no other thread runs; a greenlet of this thread goes nowhere as long as we are here.

Does not see: threads that C code starts; loops that begin and end between two looks; a process that was started as a
new program (spawn, forkserver, subprocess) from inside: the supervisor sees that one from outside.
"""

import collections
import faulthandler
import functools
import gc
import itertools
import os
import re
import signal
import sys
import _thread
import threading
import types
import weakref

from forkproof_payload import originals, probe, reach

_OURS = os.path.dirname(os.path.abspath(__file__))
_BEGIN = os.path.join(os.path.dirname(_OURS), "begin.py")
_MOST_FRAMES = 60
_TOLD_FRAMES = 8
_MOST_BIRTHS = 50
"""Births of one body in one process that are told of: an app may start a thread with each request, or a timer with each
turn of a timer. Those that come later count as the last of these."""
_MOST_WALKS = 4
"""Threads of one body for which that is done: one may be started with each request."""
_SEARCHES = (1, 4)
"""The looks of a process at which one goes through all that a lost thread leads to: some is made when the first thing
comes."""
_MOST_GONE_THROUGH = 3000
"""Objects that are gone through for that in one look, which others wait for."""
_MOST_MAYBE = 400
"""Buffers that are found by that for one thread."""
_TRIALS = 8
"""The looks of a process at which it is seen whether one of these fills; from then on, it is told how much is in it.
Of the first few that is told from the start."""
_MOST_TOLD = 40
_NUMBERED = re.compile(r"(?<=^ThreadPoolExecutor)-[0-9]+$")
_HOOKS = (
    "on_starting", "on_reload", "when_ready", "pre_fork", "post_fork", "post_worker_init", "worker_int",
    "worker_abort", "pre_exec", "pre_request", "post_request", "child_exit", "worker_exit", "nworkers_changed",
    "on_exit", "ssl_context",
)  # fmt: skip

# gevent puts others in their place, which those that were made before are no instances of.
_Thread, _Timer = threading.Thread, threading.Timer
_getpid = os.getpid
_get_ident = threading.get_ident
_allocate_lock = _thread.allocate_lock


class _Unit(object):
    """A thread, greenlet or process, as it was created."""

    def __init__(self, thing, name, kind, defined_at, origin, queues=(), copy_of=None):
        self.thing = weakref.ref(thing)
        self.kind = kind
        self.body = (name, kind, defined_at)
        self.pid = _getpid()
        self.queues = queues
        self.far = []
        self.at_fork = False  # whether it was looked through again before a fork
        self.maybe = {}  # what may fill where a fork has left it behind
        self.lost = []  # what it was at when a fork has left it behind
        self.pool = None  # a weak reference to the executor whose thread it is
        told = _last["births"].setdefault(self.body, [0, None])
        told[0] += 1
        if told[0] > _MOST_BIRTHS:
            self.birth = told[1]
            return
        self.birth = told[1] = "".join("{:02x}".format(byte) for byte in bytearray(os.urandom(8)))
        probe.event(
            "loop.created", loop=name, birth=self.birth, kind=kind, site=origin.site, defined_at=defined_at,
            thread=getattr(thing, "name", None) if kind != "greenlet" else None,
            daemon=getattr(thing, "daemon", None) if kind != "greenlet" else None,
            user=origin.user, own=origin.own[:_TOLD_FRAMES], starter=origin.starter, at=origin.frames[:_TOLD_FRAMES],
            copy_of=copy_of,
        )  # fmt: skip


_units = {}
"""By id of the object; one that was there at a fork is in the child's too."""
_slots = {}
_last = {
    "reload": None, "next": ("child", None), "server": None, "births": {}, "patched": None, "forked": None,
    "greenlets": None, "jobs": {}, "looks": 0,
}  # fmt: skip
_trees = {}
"""By id what gevent shares among the greenlets that spawned each other, of those that were there at the fork that made
this process: [it, the bodies and births of these greenlets]. Held, so that the id stays its own."""


def begin(look, stacks):
    """Watch this process, and those that it forks."""
    _last["stacks"] = stacks
    probe.event("role", role="arbiter", slot=None)
    _wrap(_Thread, "start", _starting)
    _see_bare_threads()
    if hasattr(threading, "excepthook"):
        _chain_excepthook()
    if "gevent.greenlet" in sys.modules:  # a sitecustomize of the app's own has imported it
        _see_greenlets(sys.modules["gevent.greenlet"])
    if "asyncio.base_events" in sys.modules:
        _see_event_loops(sys.modules["asyncio.base_events"])
    sys.meta_path.insert(0, _Finder())
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)
    signal.signal(look, _look)
    _let_dump()


def _let_dump():
    path = os.path.join(probe._folder, "stacks", probe.key() + ".txt")
    faulthandler.register(_last["stacks"], file=_StackFile(path), all_threads=True, chain=False)


def stay_offline():
    """Refuse what would leave this machine; what C code connects by itself is not asked about."""
    sys.addaudithook(_refuse)


def _refuse(event, args):
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    host = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if host and host not in ("localhost", "::1", "0.0.0.0", "::") and not host.startswith("127."):
        probe.event("refused", address=str(host))
        raise PermissionError("{}: refused by forkproof check --offline".format(host))


class _StackFile(object):
    def __init__(self, path):
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def fileno(self):
        return self._descriptor

    def flush(self):
        pass


def _wrap(owner, name, before, after=None):
    """Have `before(self)` called before a method, and `after(self, unit)` after it."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def method(self, *args, **kwargs):
        unit = _quietly(before, self)
        result = original(self, *args, **kwargs)
        if after is not None and unit is not None:
            _quietly(after, self, unit)
        return result

    setattr(owner, name, method)


def _quietly(function, *args):
    """What a function of ours comes to; that it failed is told, and does no harm."""
    try:
        return function(*args)
    except Exception as error:
        where = error.__traceback__
        while where.tb_next is not None:
            where = where.tb_next
        probe.event("watch.failed", error="{!r} in {}:{}".format(error, function.__name__, where.tb_lineno))
        return None


class _Finder(object):
    """Has each of these seen to once the app imports it."""

    def __init__(self):
        self._todo = {
            "multiprocessing.process": _see_processes, "gevent.greenlet": _see_greenlets,
            "asyncio.base_events": _see_event_loops, "multiprocessing.popen_fork": _see_ends_of_processes,
        }  # fmt: skip

    def find_spec(self, name, path=None, target=None):
        see = self._todo.pop(name, None)
        if see is None:
            return None
        if not self._todo:
            sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            _quietly(see, module)

        spec.loader.exec_module = exec_module
        return spec


def _see_processes(module):
    _wrap(module.BaseProcess, "start", _process_starting, _process_started)
    _wrap(module.BaseProcess, "_bootstrap", _process_begins)


def _see_ends_of_processes(module):
    for name in ("terminate", "kill"):
        _wrap(module.Popen, name, _process_ending)


def _process_ending(popen):
    """Tell of a process that is ended by another than the one that has started it: one that has inherited it."""
    children = sys.modules["multiprocessing.process"]._children
    process = next((one for one in list(children) if getattr(one, "_popen", None) is popen), None)
    unit = _units.get(id(process))
    if unit is not None and unit.thing() is process and unit.pid != _getpid() and popen.returncode is None:
        probe.event("ended", birth=unit.birth, child=popen.pid)


def _see_event_loops(module):
    _wrap(module.BaseEventLoop, "run_forever", _loop_starting)


def _loop_starting(loop):
    """Note whose loop it is: it may be known to its thread's own variables alone."""
    unit = _units.get(id(threading._active.get(_get_ident())))
    if unit is not None:
        unit.far.append(reach.Held(loop, "_ready"))


# --- where a loop comes from


class _Origin(object):
    """Who started a loop: `site` for people, `own` the places in the app's own files, the innermost first, and `user`
    the first of these; `starter` is outside of Python's library and gevent."""

    def __init__(self, frames, site):
        self.frames = ["{}:{} in {}".format(*frame) for frame in frames]
        self.site = site
        self.own = ["{}:{}".format(*frame[:2]) for frame in frames if _is_users(frame[0])]
        self.user = self.own[0] if self.own else None
        self.starter = next((frame[0] for frame in frames if not _is_plumbing(frame[0])), None)


def _walk(frame):
    """The frames from this one outwards, ours left out."""
    found = []
    while frame is not None and len(found) < _MOST_FRAMES:
        if not _is_ours(frame.f_code.co_filename):
            found.append(frame)
        frame = frame.f_back
    return found


def _plain(frames):
    return [(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name) for frame in frames]


def _is_ours(path):
    return path.startswith(_OURS) or path == _BEGIN


def _package(name):
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    return os.path.dirname(path) + os.sep if path else None


def _in_package(path, *names):
    return any(folder is not None and path.startswith(folder) for folder in map(_package, names))


def _is_plumbing(path):
    """Whether a frame only passes on: Python's library, gevent."""
    # What gevent's Cython modules report is relative to where they were built.
    return reach.is_library(path) or _in_package(path, "gevent", "greenlet") or path.startswith("src/gevent")


def _is_users(path):
    return (
        "-packages" not in path and not path.startswith("<") and not _is_plumbing(path) and not _is_ours(path)
        and not _in_package(path, "gunicorn") and not path.endswith("/bin/gunicorn")
    )  # fmt: skip


def _origin(frame):
    frames = _walk(frame)
    return _Origin(_plain(frames), _quietly(_site, frames) or "unknown")


def _site(frames):
    """Which of gunicorn's hooks, which request or which import these frames belong to."""
    for number, frame in enumerate(frames):
        code = frame.f_code
        if code.co_name == "<module>" and not reach.is_library(code.co_filename):
            if code.co_filename.endswith("/bin/gunicorn") or _in_package(code.co_filename, "gunicorn"):
                continue
            if code.co_filename == "<string>":  # what an old gunicorn evaluates: `create_app()`
                continue
            outer = [one.f_code for one in frames[number:]]
            if any(one.co_name in ("handle_request", "run_application") for one in outer):
                return "request ({})".format(_short(code.co_filename))
            return "import of {}".format(_outermost_import(frames))
        if _in_package(code.co_filename, "gunicorn") and number:
            caller = frames[number - 1].f_code
            hook = _hook(frame, caller)
            if hook is not None:
                return hook
            if code.co_name == "import_app":
                return _call(frames, number)
            if code.co_name in ("handle_request", "handle_http", "handle_http2", "process_request"):
                return "request"
            if code.co_name == "spawn_worker" and frames[0].f_code is not code and number:
                return "hook of os.fork" if not _in_package(caller.co_filename, "gunicorn") else None
        elif code.co_name == "run_application" and code.co_filename.endswith("pywsgi.py"):
            return "request"
    outermost = frames[-1].f_code if frames else None
    if outermost is not None and outermost.co_name in ("_bootstrap", "run"):
        inner = [one.f_code for one in frames if not _is_plumbing(one.f_code.co_filename)]
        if inner:
            return "loop {}".format(_code_name(inner[-1]))
    return None


def _call(frames, number):
    """`call of create_app`, of the function that this frame of gunicorn's has called for the app."""
    callers = [one.f_code.co_name for one in frames[:number] if one.f_code.co_filename != "<string>"]
    return "call of {}".format(callers[-1]) if callers else None


def _outermost_import(frames):
    """The app's own file whose import this is, the one that asked first last: the config file, or the app."""
    files = [frame.f_code.co_filename for frame in frames if frame.f_code.co_name == "<module>"]
    users = [path for path in files if _is_users(path)]
    return _short((users or files)[0])


def _short(path):
    here = os.getcwd() + os.sep
    return path[len(here) :] if path.startswith(here) else path


def _hook(frame, caller):
    """The name of the hook that gunicorn's frame has called, `hook NAME`."""
    owner = _locals(frame).get("self")
    config = getattr(owner, "cfg", None)
    settings = getattr(config, "settings", None)
    if not isinstance(settings, dict):
        return None
    for name in _HOOKS:
        setting = settings.get(name)
        value = setting.get() if setting is not None else None
        if getattr(value, "__code__", None) is caller:
            return "hook {}".format(name)
    return None


_ASKS_ITSELF = frozenset(["locals", "vars", "dir", "eval", "exec", "f_locals"])


def _locals(frame):
    """A function's variables, leaving nothing behind: before 3.13 a frame keeps what it was asked for.

    Not those of a module, or of a function that asks for them itself: those it may keep.
    """
    code = frame.f_code
    if not code.co_flags & 1 or not _ASKS_ITSELF.isdisjoint(code.co_names):
        return {}
    asked = frame.f_locals
    found = dict(asked)
    if isinstance(asked, dict):
        asked.clear()
    return found


# --- what a loop is


def _unwrapped(function):
    """The function that runs in the end, and the object that it is bound to."""
    owner = None
    for _ in range(10):
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__func__"):
            owner = function.__self__
            function = function.__func__
        elif isinstance(getattr(function, "__dict__", None), dict) and "__wrapped__" in function.__dict__:
            function = function.__dict__["__wrapped__"]
        else:
            break
    if not hasattr(function, "__code__"):
        call = getattr(type(function), "__call__", None)  # noqa: B004
        if hasattr(call, "__code__"):
            return call, function
    return function, owner


def _named(function):
    """(qualified name, `file:line`, file) of a body."""
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or type(function).__name__
    if code is None:
        return name, None, None
    return name, "{}:{}".format(code.co_filename, code.co_firstlineno), code.co_filename


def _code_name(code):
    return getattr(code, "co_qualname", code.co_name)


def _is_servers(path, origin):
    """Whether a loop is gunicorn's or gevent's own."""
    if path is not None and (_in_package(path, "gunicorn", "gevent") or path.startswith("src/gevent")):
        return True
    starter = origin.starter
    return (path is None or _is_plumbing(path)) and starter is not None and (
        _in_package(starter, "gunicorn", "geventwebsocket", "tornado") or starter.endswith("/bin/gunicorn")
    )  # fmt: skip


def _add(thing, function, kind, frame, values=(), origin=None):
    """Note that something is created; None for what is gunicorn's or gevent's own."""
    body, owner = _unwrapped(function)
    name, defined_at, path = _named(body)
    origin = origin or _origin(frame)
    if _is_servers(path, origin):
        return None
    if kind == "thread" and path is not None and path.endswith("concurrent/futures/thread.py"):
        # Those that nobody has named are numbered as they are made, which differs from run to run.
        name = _NUMBERED.sub("", getattr(thing, "name", name).rpartition("_")[0]) or name
        kind, defined_at = "executor", origin.user
    tree = _tree(thing if kind == "greenlet" else _current())
    copy_of = _trees[id(tree)][1].get((name, kind, defined_at)) if id(tree) in _trees else None
    unit = _Unit(thing, name, kind, defined_at, origin, _quietly(reach.near_queues, body, owner, values) or [], copy_of)
    if _last["births"][unit.body][0] <= _MOST_WALKS:
        given = list(values) + (_job(frame) if kind == "executor" else [])
        unit.far = _quietly(reach.far_queues, body, owner, given, unit.queues) or []
    if kind == "executor":
        unit.pool = next((one for one in values if isinstance(one, weakref.ref)), None)
    _units[id(thing)] = unit
    return unit


def _job(frame):
    """The job for which an executor starts a thread: no other thing of the thread's leads to it."""
    while frame is not None and not frame.f_code.co_filename.endswith("concurrent/futures/thread.py"):
        frame = frame.f_back
    while frame is not None and frame.f_code.co_name != "submit":
        frame = frame.f_back
    return [_locals(frame).get("fn")] if frame is not None else []


def _current():
    return sys.modules["greenlet"].getcurrent() if "gevent.greenlet" in sys.modules else None


def _tree(greenlet):
    """What gevent shares among greenlets that spawned each other; None where a hub did, as it does for requests."""
    tree = getattr(greenlet, "__dict__", {}).get("spawn_tree_locals") if greenlet is not None else None
    if tree is None and greenlet is not None and isinstance(greenlet, sys.modules["gevent.greenlet"].Greenlet):
        tree = greenlet.spawn_tree_locals
    hubs = _hubs(sys.modules["gevent.hub"].Hub) if tree is not None else []
    return None if any(getattr(hub, "spawn_tree_locals", None) is tree for hub in hubs) else tree


def _starting(thread):
    if thread._started.is_set():
        return None  # it will be refused
    function, values = _body_of(thread)
    return _add(thread, function, "timer" if isinstance(thread, _Timer) else "thread", sys._getframe(), values)


def _body_of(thread):
    """What a thread runs, and what it has for that."""
    if isinstance(thread, _Bare):
        return thread.begin(), []
    function = thread.function if isinstance(thread, _Timer) else getattr(thread, "_target", None)
    if function is None:
        function = types.MethodType(type(thread).run, thread)
    values = list(getattr(thread, "_args", None) or ()) + list((getattr(thread, "_kwargs", None) or {}).values())
    values += [value for name, value in vars(thread).items() if not name.startswith(("_target", "_args", "_kwargs"))]
    return function, values


class _Bare(object):
    """Stands for a thread that is started without `threading`, as long as it runs."""

    name = daemon = ident = native_id = None
    begin = staticmethod(type(None))


def _see_bare_threads():
    original = _thread.start_new_thread

    @functools.wraps(original)
    def start_new_thread(function, args, *kwargs):
        bare = _Bare()
        if not callable(function) or _quietly(_bare_starting, bare, function, args, kwargs) is None:
            return original(function, args, *kwargs)

        @functools.wraps(function)
        def begin(*args, **kwargs):
            bare.ident, bare.native_id = _get_ident(), getattr(_thread, "get_native_id", int)() or None
            return function(*args, **kwargs)

        bare.begin = weakref.ref(begin)
        return original(begin, args, *kwargs)

    _thread.start_new_thread = start_new_thread


def _bare_starting(bare, function, args, kwargs):
    values = list(args) + [value for one in kwargs for value in one.values()]
    return _add(bare, function, "thread", sys._getframe(), values)


def _process_starting(process):
    function = getattr(process, "_target", None)
    if function is None:
        function = functools.partial(type(process).run, process)
    unit = _add(process, function, "process", sys._getframe())
    _last["starting"] = unit
    return unit


def _process_begins(process):
    """In the process itself: have what ends it told of."""
    unit, run = _units.get(id(process)), process.run
    if unit is None or unit.thing() is not process:
        return

    @functools.wraps(run)
    def told(*args, **kwargs):
        try:
            return run(*args, **kwargs)
        except Exception as error:
            _quietly(_died, unit, process.name, type(error), error, error.__traceback__)
            raise

    process.run = told


def _process_started(process, unit):
    _last["starting"] = None
    probe.event("child", birth=unit.birth, child=process.pid)


def _chain_excepthook():
    original = threading.excepthook

    def excepthook(args, *more):
        unit = _units.get(id(args.thread)) if args.thread is not None else None
        if unit is not None and unit.thing() is args.thread:
            _died(unit, args.thread.name, args.exc_type, args.exc_value, args.exc_traceback)
        original(args, *more)

    threading.excepthook = excepthook


def _died(unit, name, kind, value, trace):
    error, at = "{}: {}".format(kind.__name__, value), []
    while trace is not None:
        at.append("{}:{}".format(trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    probe.event("loop.end", loop=name, birth=unit.birth, error=error[:500], at=at[-_TOLD_FRAMES:])


# --- forks


def _before_fork():
    _quietly(_prepare_fork)


def _prepare_fork():
    _last["next"], _last["forked"] = ("child", None), None
    trees = {}
    for one, unit in _find_greenlets():
        tree = _tree(one)
        if tree is not None:
            trees.setdefault(id(tree), [tree, {}])[1][unit.body] = unit.birth
    _last["trees"] = trees
    _last["jobs"] = _jobs()
    for unit in _loops():
        _quietly(_walk_again, unit)
    frame = sys._getframe()
    frames = _walk(frame)
    for number, one in enumerate(frames):
        if one.f_code.co_name == "spawn_worker" and _in_package(one.f_code.co_filename, "gunicorn"):
            # Only gevent's own stands between gunicorn and the system's fork: not a hook that forks.
            if all(_is_plumbing(inner.f_code.co_filename) for inner in frames[:number]):
                names = _locals(one)
                _tell_server(names["self"])
                _last["next"] = ("worker", _slot(names["self"], names["worker"], frames))
                return
            break
    inner = next((one.f_code for one in frames if not _is_plumbing(one.f_code.co_filename)), None)
    through = any(one.f_code.co_filename.endswith("/subprocess.py") for one in frames)
    if inner is not None and not through and not _in_package(inner.co_filename, "gunicorn"):
        at = "{}:{}".format(inner.co_filename, inner.co_firstlineno)
        _last["forked"] = _code_name(inner), at, _origin(frame)


def _walk_again(unit):
    """Before the first fork that may leave a thread behind: since it began it has made what it works on."""
    thread = unit.thing()
    if not isinstance(thread, _Thread) or unit.at_fork or unit.pid != _getpid():
        return
    unit.at_fork = True
    if _last["births"][unit.body][0] <= _MOST_WALKS and unit.kind != "executor" and _is_alive(thread):
        function, values = _body_of(thread)
        body, owner = _unwrapped(function)
        unit.far += reach.far_queues(body, owner, values, unit.queues + unit.far)


def _tell_server(arbiter):
    config = arbiter.cfg
    if _last["server"] is None:
        probe.event("role", role="arbiter", slot=None)
    told = {
        "workers": arbiter.num_workers, "worker_class": str(config.worker_class_str), "threads": config.threads,
        "preload": bool(config.preload_app), "timeout": config.timeout, "reload": bool(config.reload),
        "graceful_timeout": config.graceful_timeout, "config": str(config.config) if config.config else None,
        "tls": bool(config.is_ssl), "max_requests": config.max_requests,
    }  # fmt: skip
    # With reuse_port each worker makes its own.
    addresses = [listener.sock.getsockname() for listener in arbiter.LISTENERS] or list(config.address)
    told["address"] = list(addresses[0]) if addresses and isinstance(addresses[0], tuple) else [str(addresses[:1])]
    if told != _last["server"]:
        _last["server"] = told
        probe.event("server", **told)


def _slot(arbiter, worker, frames):
    """A slot that no worker has; a reload begins anew."""
    reloading = next((id(frame) for frame in frames if frame.f_code.co_name == "reload"), None)
    if reloading is not None and reloading != _last["reload"]:
        _slots.clear()
    _last["reload"] = reloading
    living = set(map(id, arbiter.WORKERS.values()))
    for gone in [one for one in _slots if one not in living]:
        del _slots[gone]
    taken = set(_slots.values())
    slot = next(number for number in range(len(taken) + 1) if number not in taken)
    _slots[id(worker)] = slot
    return slot


def _in_child():
    _quietly(_become_child)


def _become_child():
    role, slot = _last["next"]
    _last["births"] = {}
    if _last["greenlets"] is not None:
        _last["greenlets"].forked()
    _last["looks"] = 0
    _trees.update(_last.get("trees") or {})
    probe.event("role", role=role, slot=slot)
    _quietly(_find_lost_jobs)
    _let_dump()
    if role == "worker":
        _quietly(_print_apart)
        return
    _forget_who_forked()
    unit, _last["starting"] = _last.get("starting"), None
    if unit is not None:
        probe.event("child", birth=unit.birth, child=_getpid())
    elif _last["forked"] is not None:
        name, at, origin = _last["forked"]
        unit = _Unit(_Forked(), name, "fork", at, origin)
        probe.event("child", birth=unit.birth, child=_getpid())


def _print_apart():
    """Have what a worker prints go to a file of its own, where it goes to the master's: whose it is, that tells."""
    folder = os.path.join(probe._folder, "output")
    masters = os.stat(os.path.join(folder, "server"))
    descriptor = probe._open(os.path.join(folder, probe.key()), os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        try:
            if os.path.samestat(os.fstat(number), masters):
                os.dup2(descriptor, number)
        except OSError:  # it is closed
            pass
    os.close(descriptor)


def _loops():
    """What was created, but for the server's own greenlets."""
    return [unit for unit in list(_units.values()) if isinstance(unit, _Unit)]


def _jobs():
    """The job that each native thread of an executor is in, (file, function) by birth."""
    threads = [(unit, unit.thing()) for unit in _loops() if unit.kind == "executor"]
    idents = {getattr(thread, "ident", None): unit.birth for unit, thread in threads if unit.pid == _getpid()}
    natives = _stacks() if idents else {}
    jobs = {birth: _job_in(natives[ident]) for ident, birth in idents.items() if ident in natives}
    return {birth: (job[0], job[2]) for birth, job in jobs.items() if job is not None}


def _find_lost_jobs():
    """In a child: what the threads of executors that a fork has left behind were at. Nobody lets go of it here."""
    jobs = _last["jobs"]
    items = _all_of({id(sys.modules["concurrent.futures.thread"]._WorkItem)}) if jobs else []
    for unit in [unit for unit in _loops() if unit.birth in jobs]:
        for item in items:
            called = [value for name, value in vars(item).items() if name != "future"]
            codes = [getattr(reach.function_of(one), "__code__", None) for each in called for one in _flat(each)]
            if jobs[unit.birth] in [(code.co_filename, code.co_name) for code in codes if code is not None]:
                unit.lost += called


def _flat(thing):
    return list(thing) if type(thing) is tuple else [thing]


def _forget_who_forked():
    """The thread or greenlet of a loop that forks is what the child runs by: it is there, and not as that loop."""
    _units.pop(id(threading._active.get(threading.get_ident())), None)
    greenlet = _current()
    if greenlet is not None and id(greenlet) in _units:
        _units[id(greenlet)] = _Own(greenlet)


class _Forked(object):
    """Stands for a process that the app forked by itself."""


# --- greenlets


class _Greenlets(object):
    """Those of gevent's that were started, by weak references that let each go.

    A reference with a callback tells that its greenlet has gone without taking hold of it. gevent before 1.4 tells of
    none, and then all objects are looked at: a tenth of a second where an app has many.
    """

    def __init__(self, greenlets):
        self._references = [self._to(one) for one in greenlets]
        self._most = 1000
        self._thinning = _allocate_lock()

    @staticmethod
    def _to(one):
        return weakref.ref(one, id)

    def started(self, one):
        """What gevent calls with each."""
        self._references.append(weakref.ref(one, id))
        if len(self._references) > self._most and self._thinning.acquire(False):
            count = len(self._references)  # another thread may add to them meanwhile
            living = [one for one in self._references[:count] if one.__callback__ is not None]
            self._references[:count] = living
            self._most = 1000 + 2 * len(living)
            self._thinning.release()

    def forked(self):
        """In a child: whoever was at it there is not here."""
        self._thinning = _allocate_lock()

    def living(self):
        """All of them that are there."""
        return [one for one in [reference() for reference in list(self._references)] if one is not None]


def _see_greenlets(module):
    if hasattr(module.Greenlet, "add_spawn_callback"):
        _last["greenlets"] = greenlets = _Greenlets(_search_greenlets())
        module.Greenlet.add_spawn_callback(greenlets.started)


def _all_greenlets():
    if "gevent.greenlet" not in sys.modules:
        return []
    known = _last["greenlets"]
    return known.living() if known is not None else _search_greenlets()


def _search_greenlets():
    kinds = set()
    todo = [sys.modules["greenlet"].greenlet]
    while todo:
        kind = todo.pop()
        kinds.add(id(kind))  # a class of the app's may have no hash
        todo += type.__subclasses__(kind)
    return _all_of(kinds)


def _all_of(kinds):
    """All objects of these classes, which their ids tell."""
    # Nothing is asked for before list() asks.
    objects = itertools.chain.from_iterable(itertools.starmap(gc.get_objects, ((),)))
    objects, others = itertools.tee(objects)
    return list(itertools.compress(objects, map(kinds.__contains__, map(id, map(type, others)))))


def _root(one):
    while one.parent is not None:
        one = one.parent
    return one


def _find_greenlets():
    """Every greenlet that may be a loop, with what was noted of it; new ones are noted."""
    found = []
    everyone = _all_greenlets()
    if not everyone:
        return found
    hub_class = sys.modules["gevent.hub"].Hub
    kind = sys.modules["gevent.greenlet"].Greenlet
    for one in everyone:
        if isinstance(one, hub_class) or one.parent is None or not isinstance(one, kind) or _is_dead(one):
            continue
        body = getattr(one, "_run", None)
        thread = getattr(body, "__self__", None)
        if isinstance(thread, _Thread):
            found.append((one, _units.get(id(thread))))
            continue
        unit = _units.get(id(one))
        if unit is None or unit.thing() is not one:
            unit = None
            if body is not None:
                stack = getattr(one, "spawning_stack", None)
                frames = []
                while stack is not None and len(frames) < _MOST_FRAMES:
                    frames.append(stack)
                    stack = stack.f_back
                frames = [frame for frame in frames if not _is_ours(frame.f_code.co_filename)]
                origin = _Origin(_plain(frames), _quietly(_spawn_site, frames) or "unknown")
                values = list(one.args) + list((one.kwargs or {}).values())
                unit = _add(one, body, "greenlet", None, values, origin)
                if unit is None:
                    _units[id(one)] = unit = _Own(one)
        found.append((one, unit))
    return [(one, unit) for one, unit in found if unit is not None and not isinstance(unit, _Own)]


def _is_dead(one):
    """Whether a greenlet will not run again. gevent takes one for dead whose timer has fired and that has not begun."""
    return sys.modules["greenlet"].greenlet.dead.__get__(one) or one.value is not None or one.exception is not None


class _Own(object):
    """Stands for a greenlet of the server's own."""

    def __init__(self, thing):
        self.thing = weakref.ref(thing)


def _spawn_site(frames):
    """As `_site`, of what gevent keeps: it has no variables, so hooks are told by their names."""
    for number, frame in enumerate(frames):
        code = frame.f_code
        if code.co_name == "<module>" and not reach.is_library(code.co_filename) and not _in_package(
            code.co_filename, "gunicorn"
        ):
            if code.co_filename == "<string>":
                continue
            return "import of {}".format(_outermost_import(frames))
        if _in_package(code.co_filename, "gunicorn") and number:
            caller = frames[number - 1].f_code
            if code.co_name == "import_app":
                return _call(frames, number)
            if code.co_name in ("handle_request", "handle"):
                return "request"
            if caller.co_name in _HOOKS:
                return "hook {}".format(caller.co_name)
        elif code.co_name == "run_application" and code.co_filename.endswith("pywsgi.py"):
            return "request"
    return None


# --- looks


def _look(number, frame):
    _quietly(_tell, frame)


def _tell(frame):
    patched = originals.states()
    if patched != _last["patched"] or _last.get("patched_pid") != _getpid():
        _last["patched"], _last["patched_pid"] = patched, _getpid()
        probe.event("patched", when="look", keywords=originals.keywords(), off=originals.off(), names=patched)
    greenlets = _find_greenlets()
    current = root = None
    hub = {"inside": None, "iteration": None}
    if "gevent.hub" in sys.modules:
        current = sys.modules["greenlet"].getcurrent()
        root = _root(current)
        hub_class = sys.modules["gevent.hub"].Hub
        for one in _hubs(hub_class):
            if _root(one) is root:
                hub = {"inside": current is one, "iteration": getattr(one.loop, "iteration", None)}
    natives = _stacks()
    backed, told = {}, []
    for one, unit in greenlets:
        main = _root(one) is root
        at = _walk(frame if one is current else one.gr_frame) if main else []
        row = _row(unit, True, True, None, _plain(at), _print(at) if main else None)
        row["main"] = main
        if unit.kind == "greenlet":
            told.append(row)
        else:
            backed[unit.birth] = row
    idents, walked, left = set(), collections.Counter(), _MOST_GONE_THROUGH
    _last["looks"] += 1
    for unit in list(_units.values()):
        thread = unit.thing()
        if not isinstance(thread, (_Thread, _Bare)):
            continue
        row = backed.get(unit.birth)
        # Nobody but itself can take a bare one for alive.
        alive = unit.pid == _getpid() and thread.ident in natives if isinstance(thread, _Bare) else _is_alive(thread)
        if row is None:
            # The ident of one that has ended may be another's by now.
            running = alive and unit.pid == _getpid() and thread.ident in natives
            tid = getattr(thread, "native_id", None) if running else None
            walked[unit.body] += 1
            if unit.pid != _getpid() and walked[unit.body] <= _MOST_WALKS and _last["looks"] <= _TRIALS:
                _quietly(_tell_of_what_fills, unit)
                if _last["looks"] in _SEARCHES:
                    left -= _quietly(_look_further, unit, thread, left) or 0
            row = _row(unit, False, running, tid, natives[thread.ident] if running else [], None)
            if running:
                idents.add(thread.ident)
        row["alive"] = bool(alive)
        if row["alive"] or row["running"] or row["sizes"] or row["far"]:
            told.append(row)
    for key in [key for key, unit in _units.items() if unit.thing() is None]:
        del _units[key]
    probe.event(
        "look", at=["{}:{} in {}".format(*one) for one in _plain(_walk(frame)[:_TOLD_FRAMES])],
        inside=hub["inside"], iteration=hub["iteration"], units=told,
        others=_others(natives, idents),
    )  # fmt: skip


def _look_further(unit, thread, most):
    """Find what comes to a thread that a fork has left behind: some of it is made when it comes."""
    function, values = _body_of(thread)
    search, given = reach.Search((_Unit, _Own, _Bare)), _arguments(function, thread)
    search.add(function, reach.Held(thread, "function" if isinstance(thread, _Timer) else "_target"))
    for _, one, way in given:
        search.add(one, way)
    for one in values + unit.lost:
        search.add(one)
    search.go(most)
    found = search.found()
    body = getattr(reach.function_of(function), "__code__", None)
    codes = reach.reached(body, {}) if body is not None else []
    for name, one, way in given:
        if reach.holds(one) and any(reach.empties(code, name, one) for code in codes):
            found[name] = way
    for place, tells in found.items():
        if place not in unit.maybe and len(unit.maybe) < _MOST_MAYBE:
            unit.maybe[place] = tells, reach.far_size(tells()) or 0
            unit.far += [tells] if len(unit.far) < reach.MOST_QUEUES else []
    return len(search.gone_through)


def _tell_of_what_fills(unit):
    """Have what has filled since it was found told of from now on."""
    for tells, size in list(unit.maybe.values()):
        if tells not in unit.far and len(unit.far) < _MOST_TOLD and (reach.far_size(tells()) or 0) > size:
            unit.far.append(tells)


def _arguments(function, thread):
    """What a thread's function is called with: its name there, it, and the way to it."""
    code = getattr(reach.function_of(function), "__code__", None)
    if code is None or isinstance(thread, _Bare):
        return []
    attributes = ("args", "kwargs") if isinstance(thread, _Timer) else ("_args", "_kwargs")
    given = [(vars(thread).get(name) or (), reach.Held(thread, name)) for name in attributes]
    while type(function) is functools.partial:
        way = weakref.ref(function)
        given = [(function.args, reach.Given(way, "args")), (function.keywords, reach.Given(way, "keywords"))] + given
        function = function.func
    names = list(code.co_varnames[1 if type(function) is types.MethodType else 0 : code.co_argcount])
    found = []
    for things, way in given:
        if type(things) is dict:
            found += [(name, one, reach.Item(way, name)) for name, one in list(things.items())]
        else:
            for place, one in enumerate(things[: len(names)]):
                found.append((names[place], one, reach.Item(way, place)))
            del names[: len(things)]
    return found


def _stacks():
    """(file, line, function) of the calls of each native thread, the innermost first, by its ident.

    faulthandler tells without touching a frame. What it writes is made for people, and the same since Python 3.3.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("forkproof")
    else:
        path = os.path.join(probe._folder, "stacks", "{}.look".format(_getpid()))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.unlink(path)
    try:
        faulthandler.dump_traceback(file=descriptor, all_threads=True)
        text = os.pread(descriptor, 1 << 20, 0).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
    found, stack = {}, []
    for line in text.splitlines():
        frame = _FRAME.match(line)
        thread = _THREAD.match(line)
        if frame is not None:
            if not _is_ours(frame.group(1)):
                stack.append((frame.group(1), int(frame.group(2)), frame.group(3)))
        elif thread is not None:
            stack = found.setdefault(int(thread.group(1), 16), [])
    if text.endswith("\n...\n"):  # it tells of a hundred threads
        tasks = set(os.listdir("/proc/self/task"))
        for thread in [unit.thing() for unit in _loops()]:
            if str(getattr(thread, "native_id", None)) in tasks:
                found.setdefault(thread.ident, [])
    return found


_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)$')
_THREAD = re.compile(r"(?:Current thread|Thread) (0x[0-9a-f]+)")


def _hubs(hub_class):
    local = sys.modules.get("gevent._hub_local")
    one = getattr(local, "get_hub_if_exists", lambda: None)()
    return [one] if isinstance(one, hub_class) else []


def _row(unit, alive, running, tid, stack, print_):
    queues = [queue for queue in (one() for one in unit.queues) if reach.size(queue) is not None]
    far = [reach.far_size(one()) or 0 for one in unit.far]
    job = _job_in(stack)
    return {
        "birth": unit.birth, "alive": bool(alive), "running": bool(running), "tid": tid, "print": print_,
        "at": ["{}:{} in {}".format(*one) for one in stack[:_TOLD_FRAMES]],
        "job": "{}:{} in {}".format(*job) if job is not None else None,
        "sizes": [reach.size(queue) for queue in queues], "far": far, "inherited": unit.pid != _getpid(),
        "waiting": [reach.size(queue) for queue in queues if not reach.is_plain(queue)],
        "open": unit.pool is not None and getattr(unit.pool(), "_shutdown", True) is False,
    }  # fmt: skip


def _job_in(stack):
    """The outermost call of the job that a thread of an executor is in."""
    for inner, outer in zip(stack, stack[1:]):  # noqa: B905
        if outer[2] == "run" and outer[0].endswith("concurrent/futures/thread.py"):
            return inner
    return None


def _others(natives, idents):
    """Native threads that nobody has noted: the outermost calls that each is in."""
    known = {thread.ident for thread in list(threading._active.values())}
    known |= idents | {_get_ident(), threading.main_thread().ident}
    return [
        {"thread": str(ident), "at": "; ".join("{}:{} in {}".format(*one) for one in stack[-_TOLD_FRAMES:])}
        for ident, stack in natives.items()
        if ident not in known and stack
    ]


def _is_alive(thread):
    """What `thread.is_alive()` answers, without what it does besides."""
    started = getattr(thread, "_started", None)
    if started is None or not started.is_set():
        return False
    handle = getattr(thread, "_handle", None)
    if handle is not None and hasattr(handle, "is_done"):  # from 3.13
        return not handle.is_done()
    if getattr(thread, "_is_stopped", True):
        return False
    lock = getattr(thread, "_tstate_lock", None)
    return lock is None or lock.locked()


def _print(frames):
    """What differs when a greenlet has moved: where it stands, what its variables are, when its timers fire."""
    parts = []
    for frame in frames:
        values = []
        for value in _locals(frame).values():
            if isinstance(value, (int, float)) or (isinstance(value, (str, bytes)) and len(value) < 100):
                values.append(value)
            else:
                values.append(id(value))
                if type(value).__module__.startswith("gevent"):
                    values.append(getattr(value, "at", None))
        parts.append((frame.f_code.co_filename, frame.f_lasti, tuple(values)))
    return "{:x}".format(hash(tuple(parts)) & 0xFFFFFFFFFFFF)
