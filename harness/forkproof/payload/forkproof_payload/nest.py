"""A server's process as it stands when its first imports are done, kept to fork one for each run.

`serve.py` comes here instead of starting gunicorn where the environment has FORKPROOF_NEST: a descriptor to be asked
at, and what is to be imported. One may ask for two things. A server returns from `wait` in the asker's pid namespace,
as its child, with the folder, environment and streams that were sent, with nothing left of the nest. Another nest has
imported more, and is asked elsewhere. What a cold start would have by then says `forkproof.nest`; that it is the same
is compared in `tests/test_nest_servers.py`.

Needs Python 3.7, whose at-fork hooks give each child a random state of its own, and the rights that setns(2) needs.
"""

import os
import posix
import sys

_NEW_MOUNTS, _NEW_PIDS = 0x20000, 0x20000000
_LONGEST, _DESCRIPTORS = 1 << 16, 5
_PATHS = ("FORKPROOF_RUN", "HOME", "TMPDIR")


def wait(plan):
    """Import what `plan` says after its descriptor; return in each server that is asked for, and nowhere else."""
    # What one needs here may be patched, or missing in a server that starts: only what is built in is used. With a
    # patched os.fork or os.waitpid there would be a hub, which all servers would share, and which ends no nest.
    import _signal
    import _socket

    # A supervisor handles these, so a server that it starts does not ignore them, whoever may have said so to us.
    for number in (_signal.SIGHUP, _signal.SIGTERM, _signal.SIGCHLD):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    descriptor, words = plan.split(" ", 1)
    del os.environ["FORKPROOF_NEST"]
    _bring(words)
    setns = _without_a_trace(_find_setns)
    old = dict((name, os.environ[name]) for name in _PATHS)
    old["cwd"] = os.getcwd()
    space = _socket.CMSG_SPACE(_DESCRIPTORS * 4)
    asked = _ready(_socket.socket(fileno=int(descriptor)))
    captured = _captured(old)
    while True:
        said, extra, _, _ = asked.recvmsg(_LONGEST, space)
        _reap(0 if not said else os.WNOHANG)
        if not said:
            os._exit(0)
        descriptors = [number for _, _, data in extra for number in memoryview(data).cast("i").tolist()]
        what, said = said.split(b"\0", 1)
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if what == b"nest":
                setns(own, _NEW_PIDS)  # not where the last server is
                if posix.fork() == 0:
                    asked.close()
                    _bring(said.decode())
                    captured = _captured(old)
                    asked = _ready(_socket.socket(fileno=os.dup(descriptors[0])))
            elif _hatch(_socket.socket(fileno=descriptors.pop(0)), descriptors, setns):
                break
        except OSError:
            pass  # whoever asks starts it in another way
        finally:
            for number in (own, *descriptors):
                os.close(number)
    asked.close()
    _become(said, old, captured)


def _ready(asked):
    """Tell who is asked here."""
    asked.send(b"%d" % os.getpid())
    return asked


def _reap(how):
    """Collect the nests that were forked from this one and have ended; wait for them where nobody asks any more."""
    try:
        while posix.waitpid(-1, how)[0]:
            pass
    except ChildProcessError:
        pass


def _hatch(told, descriptors, setns):
    """Whether this process is the server that was asked for; its streams are then the ones that were sent."""
    null, log, pids, mounts = descriptors
    middle = None
    try:
        setns(pids, _NEW_PIDS)
        middle = posix.fork()
        if middle and posix.waitpid(middle, 0)[1] == 0:
            told.send(b"+")
    finally:
        if middle != 0:
            told.close()
    if middle:
        return False
    try:
        _fork_again(told, mounts, setns)
        told.close()
        os.setsid()
        for source, descriptor in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, descriptor)
    except OSError:
        os._exit(1)
    return True


def _bring(words):
    """Import modules; `-name` makes its import fail, `class:name` is gunicorn's name of a worker class."""
    for word in words.split():
        if word.startswith("-"):
            sys.modules[word[1:]] = None
        elif word.startswith("class:"):
            from gunicorn.util import load_class

            load_class(word[len("class:"):])
        else:
            __import__(word)


def _without_a_trace(call):
    """What a call returns, with the modules that it imported forgotten again."""
    before, folders = set(sys.modules), set(sys.path_importer_cache)
    result = call()
    for name in set(sys.modules) - before:
        del sys.modules[name]
    for folder in set(sys.path_importer_cache) - folders:
        del sys.path_importer_cache[folder]
    return result


def _find_setns():
    """os.setns came with 3.12."""
    import ctypes

    function = ctypes.CDLL(None, use_errno=True).setns

    def setns(descriptor, kind):
        if function(descriptor, kind) != 0:
            raise OSError(ctypes.get_errno(), "setns is refused")

    return setns


def _captured(old):
    """Names that mean a path which is this process's own, or below it: (module or class in one, name, which, rest)."""
    which = sorted(((path, name) for name, path in old.items()), reverse=True)  # a folder after what is in it
    found = []

    def look(holder, names):
        for name, value in list(names.items()):
            if type(value) is str and value.startswith("/"):
                for path, key in which:
                    if value == path or value.startswith(path + "/"):
                        found.append((holder, name, key, value[len(path):]))
                        break

    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", {})
        look(module, names)
        for value in list(names.values()):
            if isinstance(value, type) and value.__module__ == module.__name__:
                look(value, vars(value))
    return found


def _fork_again(told, mounts, setns):
    """Return in a child of this process, and end this one: the child's parent is then who began the namespace."""
    setns(mounts, _NEW_MOUNTS)
    server = posix.fork()
    if server:
        told.send(b"%d" % server)
        os._exit(0)
    if told.recv(1) != b"+":
        os._exit(1)  # nobody waits for it any more


def _become(said, old, captured):
    """Be as the program that was asked for, at its start: folder, environment, children, and what knows of these."""
    import time

    cwd, children, said = said.split(b"\0", 2)
    words = said.split(b"\0")
    os.chdir(cwd)
    os.environb.clear()
    for variable in words[3 * int(children):]:
        name, _, value = variable.partition(b"=")
        os.environb[name] = value
    for first in range(0, 3 * int(children), 3):
        if posix.fork() == 0:
            try:
                os.execv("/bin/sh", [b"sh", *words[first:first + 3]])
            finally:
                os._exit(127)
    new = dict((name, os.environ[name]) for name in _PATHS)
    new["cwd"] = os.fsdecode(cwd)
    for holder, name, which, rest in captured:
        setattr(holder, name, new[which] + rest)
    sys.path[:] = [new["cwd"] if entry == old["cwd"] else entry for entry in sys.path]
    sys.path_importer_cache.pop(old["cwd"], None)
    del sys.modules["forkproof_payload.nest"], sys.modules["forkproof_payload"]
    sys.path_importer_cache.pop(os.path.dirname(__file__), None)
    logging, threading = map(sys.modules.get, ("logging", "threading"))
    if logging is not None:  # since when it counts
        logging._startTime = time.time_ns() if isinstance(logging._startTime, int) else time.time()
    if threading is not None:
        _be_a_first_thread(threading)


def _be_a_first_thread(threading):
    """What threading knows of the main thread of a program, and not of that of a fork."""
    main = threading.main_thread()
    if hasattr(main, "_native_id"):
        main._native_id = os.getpid()
    lock = getattr(main, "_tstate_lock", None)
    if lock is not None and hasattr(threading, "_shutdown_locks"):
        threading._shutdown_locks.add(lock)
