"""What every name of every module means at a moment, so that two processes can be compared; runs in a server.

Each name is followed a few steps: into classes, functions' defaults and closures, containers and instances' attributes.
An object that is met again is told by where it was met first, so that what is one object in one process is to be one
in the other as well. Standard library only, old syntax, as all that runs there; the hash seed is to be the same, since
the order of a set is part of what some names mean.
"""

import gc
import json
import os
import re
import signal
import sys
import threading
import types

DEPTH = 5
PASSED_OVER = (
    # The record of what has happened so far, caches, and times.
    "sys.modules", "sys.path_importer_cache", "re._cache", "re._cache2", "linecache.cache", "logging._startTime",
)  # fmt: skip
_LIST = (list, tuple)
_BUILT_IN = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, types.GetSetDescriptorType,
    types.MemberDescriptorType, types.ClassMethodDescriptorType,
)  # fmt: skip
_main = set()
"""What the main thread is called by threading: its native ident, or that of its greenlet."""


def take(moment, depth_most=DEPTH):
    """Write what there is now to the run's folder, names followed so many steps."""
    main = threading.main_thread()
    _main.update(
        {main.ident, threading.get_ident()}, (ident for ident, one in threading._active.items() if one is main)
    )
    modules = sorted((name, module) for name, module in list(sys.modules.items()) if module is not None)
    names, seen, todo = {}, {}, []
    for name, module in modules:
        if not name.startswith("forkproof_payload") and hasattr(module, "__dict__"):
            seen[id(module)] = name
            for inner, value in sorted(vars(module).items()):
                if inner not in ("__builtins__", "__warningregistry__") and name + "." + inner not in PASSED_OVER:
                    todo.append((name + "." + inner, value, 0))
    alive = []  # else an id might be given twice
    while todo:
        path, value, depth = todo.pop(0)
        told, inside = _told(value)
        if path.endswith("._native_id") and value == os.getpid():
            told = "<pid>"
        names[path] = [told, path]
        if inside is None:
            continue
        if id(value) in seen:
            names[path][1] = seen[id(value)]
            continue
        seen[id(value)] = path
        alive.append(value)
        if depth < depth_most and not path.endswith(
            "._last_parent_path"
        ):  # which is worked out again when it is needed
            todo += [(path + where, inner, depth + 1) for where, inner in inside]
    found = {"modules": [name for name, _ in modules], "names": names, "process": _process()}
    path = os.path.join(os.environ["FORKPROOF_RUN"], f"snapshot-{moment}-{os.getpid()}.json")
    with open(path, "w") as file:
        file.write(_plain(re.sub("( at 0x|localimpl_)[0-9a-f]+", "", json.dumps(found))))


def _plain(text):
    """A text without what is a run's or a process's own."""
    with open("/proc/self/stat", "rb") as stat:
        start = stat.read().rpartition(b")")[2].split()[19].decode()
    return text.replace(f"{os.getpid()}-{start}", "<key>").replace(os.environ["FORKPROOF_RUN"], "<run>")


def _process():
    """What a program may ask of its process, but for modules."""
    frame, stack = sys._getframe(), []
    while frame is not None:
        stack.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")
        frame = frame.f_back
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file.read().splitlines())
    with open("/proc/self/limits") as file:
        limits = file.read()
    with open("/proc/self/cmdline") as file:
        command = file.read()
    wanted = ("SigBlk", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid",
              "Gid", "Groups", "Threads", "Umask", "Cpus_allowed")  # fmt: skip
    opened = ["/proc/self/fd/" + name for name in os.listdir("/proc/self/fd")]
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return {
        "arguments": [sys.argv, getattr(sys, "orig_argv", None), command],
        "path": list(sys.path),
        "flags": [repr(sys.flags), sys.dont_write_bytecode, sys.getrecursionlimit(), sys.getswitchinterval()],
        "warnings": [repr(one) for one in sys.modules["warnings"].filters],
        "environment": list(os.environ.items()),
        "folder": [os.getcwd()],
        "descriptors": sorted(os.readlink(path) for path in opened if os.path.exists(path)),
        "limits": limits.splitlines(),
        "status": [f"{name}: {status.get(name)}" for name in wanted],
        # 32 and 33 are the C library's own: it ignores them in a program that posix_spawn has started.
        "ignored": [hex(int(status["SigIgn"], 16) & 0x7FFFFFFF)],
        "handlers": [repr(signal.getsignal(number)).split(" at ")[0] for number in range(1, 32)],
        "session": [os.getppid() == 1, {os.getsid(0), os.getpgid(0)} <= {os.getpid(), os.getppid()}],
        "collector": [gc.isenabled(), gc.get_threshold(), getattr(gc, "get_freeze_count", int)()],
        "main": sorted(vars(sys.modules["__main__"])),
        "nice": [os.nice(0)],
        "threads": [type(thread).__name__ for thread in threading._active.values()],
        "traced": [sys.getprofile() is None, sys.gettrace() is None],
        "stack": stack,
        "streams": [[s.name, s.mode, s.encoding, s.errors, s.line_buffering, type(s.buffer).__name__] for s in streams],
    }


def _told(value):
    """(what it is, what is inside); inside is None for what no program tells apart by its being another object."""
    kind = type(value)
    if kind is int and value in _main:
        return "int <main>", None
    if value is None or kind in (bool, int, float, complex, str, bytes):
        return repr(value)[:300], None
    if kind in (tuple, frozenset) and not value:
        return kind.__name__, None
    for kinds, tell in _KINDS:
        if issubclass(kind, kinds):
            return tell(value)
    return f"{kind.__module__}.{kind.__qualname__}{_whether_held(kind, value)}", _attributes(value)


def _of_module(value):
    return "module " + value.__name__, []


def _of_function(value):
    inside = [(f"()[{n}]", default) for n, default in enumerate(value.__defaults__ or ())]
    inside += [(f"()[{n}]", default) for n, default in sorted((value.__kwdefaults__ or {}).items())]
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or ()):
        try:
            inside.append((f"(){{{name}}}", cell.cell_contents))
        except ValueError:  # it is empty
            pass
    inside += [("." + name, inner) for name, inner in sorted(vars(value).items())]
    code = value.__code__
    told = (value.__module__, value.__qualname__, code.co_filename, code.co_firstlineno)
    return "function {}.{} {}:{}".format(*told), inside


def _of_class(value):
    own = ("__dict__", "__weakref__", "_abc_impl", "__abstractmethods__")
    inside = [("." + name, inner) for name, inner in sorted(vars(value).items()) if name not in own]
    bases = [base.__qualname__ for base in value.__mro__]
    told = f"class {value.__module__}.{value.__qualname__} {bases}"
    # What is made in C without a heap type is the same in every process.
    return told, inside if value.__flags__ & 1 << 9 else []


def _of_dict(value):
    inside = sorted((("[" + _key(key) + "]", inner) for key, inner in dict.items(value)), key=lambda one: one[0])
    return type(value).__qualname__, inside + _attributes(value)


def _of_list(value):
    each = tuple.__iter__(value) if isinstance(value, tuple) else list.__iter__(value)
    return type(value).__qualname__, [(f"[{n}]", inner) for n, inner in enumerate(each)] + _attributes(value)


def _of_set(value):
    return type(value).__qualname__, sorted((("{" + _key(one) + "}", one) for one in value), key=lambda one: one[0])


def _of_builtin(value):
    owner = getattr(value, "__self__", None)
    return "built-in {} {}".format(value.__qualname__, getattr(owner, "__name__", type(owner).__name__)), []


def _of_method(value):
    return type(value).__name__, [("!", value.__func__)]


def _of_property(value):
    return "property", [("!get", value.fget), ("!set", value.fset)]


_KINDS = (
    (types.ModuleType, _of_module),
    (types.FunctionType, _of_function),
    (types.CodeType, lambda value: ("code " + value.co_name, None)),
    (type, _of_class),
    (dict, _of_dict),
    (_LIST, _of_list),
    ((set, frozenset), _of_set),
    (_BUILT_IN, _of_builtin),
    ((staticmethod, classmethod), _of_method),
    (property, _of_property),
)


def _attributes(value):
    """An instance's attributes, without asking it: a proxy would run its own code."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        found = {}
    inside = [(f".{name}", inner) for name, inner in found.items()] if type(found) is dict else []
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            try:
                inside.append(("." + slot, object.__getattribute__(value, slot)))
            except AttributeError:
                pass
    return sorted(inside, key=lambda one: one[0])


def _whether_held(kind, value):
    return " held" if kind.__module__ == "_thread" and hasattr(kind, "locked") and value.locked() else ""


def _key(key):
    if type(key) is int and key in _main:
        return "<main>"
    if type(key) in (str, bytes, int, float, tuple, type(None)):
        return repr(key).partition(" at 0x")[0]
    named = key if issubclass(type(key), (type, types.FunctionType, types.CodeType)) else type(key)
    return "{}.{}".format(type(key).__qualname__, getattr(named, "__qualname__", getattr(named, "co_name", "")))
