"""What comes to a loop: the queues and buffers that it takes from, among all that it is given and leads to.

A loop's code tells what it takes from: under which names it looks, what it empties of them, or exchanges. What it is
given, encloses or names is gone through for that, by attributes, slots, closures, classes, modules, keys and weak
references: a few steps for any loop (`near_queues`, `far_queues`), and all there is for one that a fork has left behind
(`Search`). What is found is given back as what tells how it is now (`Held` and others): a buffer may be exchanged for a
fresh one.

Runs no code of the app, unless a class of its own answers for `__dict__` (what a loop is given is asked for that as it
starts): attributes are read past its classes' `__getattr__` and properties, sizes by functions of C code or of Python's
and gevent's queues. Keeps alive nothing that it looks at, but for the code of functions: what
tells refers weakly, or goes the way again that has led there.

Does not see: what C code holds, or takes by itself; what is named by strings that are made while it runs; more than so
many objects, each bound beside its constant.
"""

import collections
import dis
import functools
import gc
import io
import itertools
import os
import re
import sys
import types
import weakref

MOST_QUEUES = 8
_TAKES = frozenset(["pop", "popleft", "popitem", "clear", "remove", "discard"])
_FAR = 4
"""Steps from what a loop is given to a queue."""
_MOST_REACHED = 60
"""Objects that are looked through for one loop, at each of these steps."""
_MOST_HELD = 50
"""Things that are looked at in a list or a dictionary that one goes through."""
_MOST_WITHIN = 300
"""Objects that are counted in a dictionary."""
_HOLDERS = (list, dict, set, tuple, collections.deque)
_BUFFERS = (list, dict, set, bytearray, collections.deque)
_SIMPLE = (str, bytes, int, float, type(None))
_CODE_OF = {types.GeneratorType: "gi_code", types.CoroutineType: "cr_code", types.AsyncGeneratorType: "ag_code"}
_NO_APPS = ("gunicorn", "gevent", __name__.partition(".")[0])
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep

_Function = types.FunctionType


def near_queues(body, owner, values):
    """What tells a loop's queues: its arguments, attributes of its object and of these, globals that it names."""
    code = getattr(body, "__code__", None)
    cells = [_cell(cell) for cell in getattr(body, "__closure__", None) or ()]
    things = [one() if type(one) is weakref.ref else one for one in list(values) + cells]
    module = sys.modules.get(getattr(body, "__module__", None))
    codes = reached(code, vars(module) if module is not None else {})
    takes = any(not _TAKES.isdisjoint(one.co_names) for one in codes)
    queues = [one for one in things if size(one) is not None and type(one) is not list]
    found = [weakref.ref(one) for one in queues if takes or not is_plain(one)]
    for one in [owner] + things:
        attributes = getattr(one, "__dict__", None)
        if isinstance(attributes, dict) and not isinstance(one, (type, type(os))) and not _waits_inside(one):
            functions = {name: each for base in reversed(type(one).__mro__) for name, each in vars(base).items()}
            found += _named_queues(one, list(attributes)[:50], reached(code, functions))
    if code is not None and module is not None:
        found += _named_queues(module, code.co_names, codes)
    known = {}
    for queue in found:
        known.setdefault(id(queue()), queue)
    return list(known.values())[:MOST_QUEUES]


class _Reach(object):
    """The code that a loop's body leads to: functions that it names, of the objects and modules that are known."""

    def __init__(self):
        self.codes, self.names = {}, set()
        self.new_names, self.new_functions = [], []  # those that nobody has asked for
        self._functions, self._known = {}, set()

    def know(self, thing):
        """Take in the functions of an object's class, and of the modules in which its classes are."""
        self.know_class(type(thing))

    def know_class(self, kind):
        for base in kind.__mro__:
            if id(base) not in self._known:
                self._known.add(id(base))
                self._take_in(vars(base))
                self.know_module(base.__module__)

    def know_module(self, name):
        module = sys.modules.get(name)
        if type(module) is type(sys) and id(module) not in self._known:
            self._known.add(id(module))
            self._take_in(vars(module))

    def _take_in(self, named):
        for name, one in list(named.items()):
            one = one.__func__ if type(one) in (staticmethod, classmethod) else one
            one = one.fget if type(one) is property else one
            if type(one) is _Function:
                self._functions.setdefault(name, []).append(one)
                if name in self.names:
                    self.follow(one)

    def follow(self, function):
        todo = [function]
        while todo:
            one = todo.pop()
            code = getattr(one, "__code__", one)
            if id(code) in self.codes:
                continue
            self.codes[id(code)] = code
            self.new_functions += [one] if type(one) is _Function else []
            todo += [inner for inner in code.co_consts if type(inner) is type(code)]
            for name in set(code.co_names) - self.names:
                self.names.add(name)
                self.new_names.append(name)
                todo += self._functions.get(name, ())


def is_library(path):
    return path.startswith(("<frozen", _LIBRARY)) and "-packages" not in path


def _is_librarys(name):
    """Whether a module is of Python's library, or is not there."""
    module = sys.modules.get(name)
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    return module is None or origin in ("built-in", "frozen") or is_library(getattr(module, "__file__", None) or "")


_STORE_ATTR, _STORE_FAST = dis.opmap["STORE_ATTR"], dis.opmap["STORE_FAST"]
_DELETE_SUBSCR = dis.opmap["DELETE_SUBSCR"]
_STORING = (_STORE_ATTR, dis.opmap["STORE_GLOBAL"])
_HIDING = {
    each for name, each in dis.opmap.items()
    if name in ("STORE_DEREF", "STORE_SLICE") or ("STORE_FAST" in name and name != "STORE_FAST")
}  # fmt: skip
_KEY_STORED = bytes([dis.opmap["LOAD_CONST"], dis.opmap["STORE_SUBSCR"]])
_KEY_READ = bytes([dis.opmap["LOAD_CONST"], dis.opmap.get("BINARY_SUBSCR") or dis.opmap["BINARY_OP"]])
_SLICE_STORED = bytes([dis.opmap["BUILD_SLICE"], dis.opmap["STORE_SUBSCR"]])
_NAMED_TAKES = _TAKES | {"heappop"}


def far_queues(body, owner, values, near):
    """What tells the queues that a loop gets at through what it has: attributes of attributes that its code names."""
    if not hasattr(body, "__code__"):
        return []
    reach = _Reach()
    reach.follow(body)
    reach.know_module(getattr(body, "__module__", None))
    cells = [_cell(cell) for cell in getattr(body, "__closure__", None) or ()]
    level = [one() if type(one) is weakref.ref else one for one in [owner] + list(values) + cells]
    named = vars(sys.modules.get(getattr(body, "__module__", None), types))
    level += [named[name] for name in reach.names if name in named]
    known = {id(queue()) for queue in near}
    found = []
    for _ in range(_FAR):
        level = [each for one in level for each in _opened(one, reach)]
        level = [one for one in level if _has_attributes(one) and not _is_weak(one) and id(one) not in known]
        level = level[:_MOST_REACHED]
        known.update(map(id, level))
        for one in level:
            reach.know(one)
        following = []
        for one in level:
            attributes = _attributes(one)
            for name in sorted(reach.names & attributes.keys()):
                value = attributes[name]
                if far_size(value) is None:
                    following.append(value)
                elif id(value) not in known and (
                    _is_queue(value) or any(_takes(each, name, value) for each in list(reach.codes.values()))
                ):
                    known.add(id(value))
                    try:
                        found.append(Held(one, name))
                    except TypeError:  # it cannot be referred to weakly
                        pass
        level = following
    return found[:MOST_QUEUES]


def _opened(thing, reach):
    """What a function that a loop is given leads to: what it is bound to and encloses, once its code is known."""
    if type(thing) not in (_Function, types.MethodType, functools.partial):
        return [thing]
    given = []
    while type(thing) is functools.partial:
        given += list(thing.args) + list(thing.keywords.values())
        thing = thing.func
    if type(thing) is types.MethodType:
        given.append(thing.__self__)
        thing = thing.__func__
    if type(thing) is _Function:
        reach.follow(thing)
        reach.know_module(thing.__module__)
        given += [_cell(cell) for cell in thing.__closure__ or ()]
    return given


class Search(object):
    """Goes through all that a loop leads to, and finds the buffers among it from which code that it leads to takes, or
    in whose place it puts others, and the queues.

    Each object comes with the way to it, a function that gets at it, or None, and with the name of the attribute that
    has the object in which it is.
    """

    def __init__(self, passed_over=()):
        self.gone_through, self._passed_over = set(), passed_over
        self._reach, self._todo = _Reach(), collections.deque()
        self._unnamed, self._held, self._enclosed = {}, {}, {}

    def add(self, one, way=None, within=None):
        self._todo.append((one, way, within))

    def go(self, most):
        while self._todo and len(self.gone_through) < most:
            one, way, within = self._todo.popleft()
            if id(one) not in self.gone_through and not issubclass(type(one), _SIMPLE):
                self.gone_through.add(id(one))
                self._open(one, way, within)
                self._go_on()

    def _open(self, one, way, within):
        kind = type(one)
        if kind in (_Function, types.MethodType, functools.partial):
            self._open_function(one, way)
        elif kind in _CODE_OF:
            self._open_code(getattr(one, _CODE_OF[kind]))
        elif issubclass(kind, weakref.ref):
            self.add(weakref.ref.__call__(one))
        elif issubclass(kind, type):
            if not _is_no_apps(one.__module__):
                self._reach.know_class(one)
                self._note(one, None, vars(one), None)
        elif kind is type(sys):
            if not _is_no_apps(vars(one).get("__name__")):
                self._reach.know_module(vars(one)["__name__"])
                self._note(one, None, vars(one), None)
        elif issubclass(kind, _HOLDERS) and not _kind_of(one).fields:
            for each, at in _first(one, way):
                self.add(each, at)
        elif _has_attributes(one) and kind not in self._passed_over:
            self._reach.know(one)
            self._note(one, way, _attributes(one), within)
            for base in kind.__mro__:
                self.add(base)

    def _open_function(self, one, way):
        if type(one) is functools.partial:
            way = way or weakref.ref(one)
            self.add(one.args, Given(way, "args"))
            self.add(one.keywords, Given(way, "keywords"))
            self.add(one.func, Given(way, "func"))
            return
        if type(one) is types.MethodType:
            self.add(one.__self__, Given(way, "__self__") if way is not None else None)
            self.add(one.__func__)
            return
        for number, cell in enumerate(one.__closure__ or ()):
            name, thing = one.__code__.co_freevars[number], _cell(cell)
            at = _Enclosed(one, number)
            if holds(thing) and _takes(one.__code__, name, thing):
                self._enclosed[id(cell)] = at
            self.add(thing, at)
        self._reach.follow(one)
        self._reach.know_module(one.__module__)

    def _open_code(self, code):
        """Go on with what a generator or coroutine runs, whose module its file tells."""
        self._reach.follow(code)
        for module in list(sys.modules.values()):
            if type(module) is type(sys) and vars(module).get("__file__") == code.co_filename:
                self._note_globals(code, vars(module))

    def _note_globals(self, code, named):
        """Take in what a function names of its module."""
        module = sys.modules.get(named.get("__name__"))
        if type(module) is type(sys) and vars(module) is named and not _is_no_apps(named["__name__"]):
            names = {name for one in reached(code, {}) for name in one.co_names}
            self._note(module, None, {name: named[name] for name in names if name in named}, None)

    def _note(self, owner, way, values, within):
        """Take in what an object has under names, as far as the code has these."""
        for name, value in list(values.items()):
            if name in self._reach.names:
                self._name(name, owner, way, value, within)
            else:
                self._unnamed.setdefault(name, []).append((owner, way, value, within))

    def _go_on(self):
        """Go on with what has a name that the code has since then, and with what new code names."""
        names, self._reach.new_names = self._reach.new_names, []
        for name in names:
            for each in self._unnamed.pop(name, ()):
                self._name(name, *each)
        functions, self._reach.new_functions = self._reach.new_functions, []
        for function in functions:
            self._note_globals(function.__code__, function.__globals__)

    def _name(self, name, owner, way, value, within):
        at = _held(owner, name, way)
        self.add(value, at, name)
        if at is not None and not _is_weak(owner) and (holds(value) or size(value) is not None):
            self._held.setdefault(name, []).append((at, id(owner), value, within))

    def found(self):
        """{what names a place: what tells}"""
        found = dict(self._enclosed)
        codes = list(self._reach.codes.values())
        holders = {each[3] for held in self._held.values() for each in held}
        exchanged = {
            name for code in codes if code.co_name != "__init__" and _STORE_ATTR in code.co_code[::2]
            for name in holders.intersection(code.co_names) if empties(code, name, None)
        }  # fmt: skip
        emptying = {code.co_name for code in codes if _empties_argument(code)}
        for code in codes:
            passes_on = not emptying.isdisjoint(code.co_names)
            for name in sorted(self._held.keys() & set(code.co_names)):
                for at, owner, value, within in self._held[name]:
                    if passes_on or _is_queue(value) or within in exchanged or _takes(code, name, value):
                        found[owner, name] = at
        return found


def _is_no_apps(name):
    """Whether a module is Python's, gunicorn's, gevent's or ours."""
    return type(name) is not str or _is_librarys(name) or name.partition(".")[0] in _NO_APPS


def _held(owner, name, way):
    try:
        return Held(owner, name, way)
    except TypeError:  # it cannot be referred to weakly
        return None


def _empties_argument(code):
    names = code.co_varnames[: code.co_argcount] if not _TAKES.isdisjoint(code.co_names) else ()
    return any(empties(code, name, None) for name in names)


def _first(holder, way):
    """Some of what is in a list, dictionary, set, tuple or deque, each with the way to it."""
    kind = _kind_of(holder).holder
    some = list(itertools.islice(dict.items(holder) if kind is dict else enumerate(kind.__iter__(holder)), _MOST_HELD))
    ways = way is not None and kind in (dict, tuple)
    return [(one, Item(way, key) if ways and type(key) in (int, str) else None) for key, one in some]


class _Enclosed(object):
    """What a function's closure has in one place now."""

    def __init__(self, function, number):
        self._function, self._number = weakref.ref(function), number

    def __call__(self):
        function = self._function()
        return _cell(function.__closure__[self._number]) if function is not None else None


def function_of(thing):
    """The function that is called, of one, a method or a partial."""
    while type(thing) is functools.partial:
        thing = thing.func
    return getattr(thing, "__func__", thing)


class _Kind(object):
    """What is the same for all objects of a class, which is asked for once: there are many more objects."""

    def __init__(self, kind):
        self.of = weakref.ref(kind)
        module = kind.__module__ or ""
        self.holder = next((one for one in _HOLDERS if issubclass(kind, one)), None)
        self.is_plain = kind is list or issubclass(kind, collections.deque)
        self.tells_size = module == "_queue" or (module.startswith("gevent.") and hasattr(kind, "qsize"))
        has_inner = hasattr(kind, "qsize") and hasattr(kind, "get")
        self.may_have_size = self.is_plain or self.tells_size or has_inner
        self.waits_inside = module in ("threading", "asyncio.locks") or module.startswith("gevent.")
        named = [vars(base).get("_fields") for base in kind.__mro__] if issubclass(kind, tuple) else []
        self.fields = next((names for names in named if type(names) is tuple), ())
        bases = [vars(base) for base in kind.__mro__]
        kept = [base["__dict__"] for base in bases if "__dict__" in base]
        self.has_attributes = (
            not self.waits_inside and not issubclass(kind, (type, type(sys)))
            and all(type(one) is types.GetSetDescriptorType for one in kept)
            and (bool(kept) or any("__slots__" in base for base in bases))
        )  # fmt: skip


_kinds = {}
"""By id of the class, which is not held: another may have the id by now."""


def _kind_of(thing):
    kind = type(thing)
    known = _kinds.get(id(kind))
    if known is None or known.of() is not kind:
        known = _kinds[id(kind)] = _Kind(kind)
    return known


def _has_attributes(thing):
    """Whether an object has attributes of its own, which can be read without any code of its class."""
    kind = _kind_of(thing)
    return kind.has_attributes and (not kind.may_have_size or size(thing) is None)


def _attributes(thing):
    """The attributes of an object by name, those in slots too, for which C code alone is asked."""
    found = {}
    for place, name in enumerate(_kind_of(thing).fields):
        found[name] = tuple.__getitem__(thing, place)
    for base in [vars(base) for base in type(thing).__mro__]:
        if "__dict__" in base:
            found.update(base["__dict__"].__get__(thing))
        for name, one in list(base.items()) if "__slots__" in base else ():
            if type(one) is types.MemberDescriptorType:
                try:
                    found.setdefault(name, one.__get__(thing))
                except AttributeError:  # it is empty
                    pass
    return found


def _is_weak(thing):
    """Whether it is a weak set or dictionary: these hold nothing, so they are no place for work."""
    return type(thing).__module__ in ("weakref", "_weakrefset")


def _cell(cell):
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


class Held(object):
    """What an object's attribute, or a module's global, stands for now: a buffer may be exchanged for a fresh one.

    What cannot be referred to weakly is got at by the way that has led to it.
    """

    def __init__(self, owner, name, way=None):
        self._name, self._weak = name, way is None or type(owner).__weakrefoffset__ != 0
        self._owner = weakref.ref(owner) if self._weak else way

    def __call__(self):
        owner = self._owner()
        if owner is None or not (self._weak or _has_attributes(owner)):
            return None
        return (vars(owner) if isinstance(owner, (type, type(sys))) else _attributes(owner)).get(self._name)


class Item(object):
    """What a dictionary or a tuple that a way leads to has at one place now."""

    def __init__(self, way, key):
        self._way, self._key = way, key

    def __call__(self):
        holder = self._way()
        if issubclass(type(holder), dict):
            return dict.get(holder, self._key)
        return holder[self._key] if type(holder) is tuple and len(holder) > self._key else None


def _named_queues(owner, names, codes):
    """The queues among an object's attributes. A list or a deque that a loop takes nothing from is to remember by."""
    found = []
    for name in names:
        one = vars(owner).get(name)
        if size(one) is not None and (not is_plain(one) or any(_takes(code, name, one) for code in codes)):
            try:
                found.append(Held(owner, name))
            except TypeError:  # it cannot be referred to weakly
                pass
    return found


def _is_queue(thing):
    kind = _kind_of(thing)
    return kind.may_have_size and not kind.is_plain and size(thing) is not None


def is_plain(thing):
    return _kind_of(thing).is_plain


def reached(code, functions):
    """The code of a body, and of the functions among these that it names, that they name in turn."""
    found, todo = [], [code]
    while todo:
        one = todo.pop()
        if one is not None and one not in found:
            found.append(one)
            todo += [inner for inner in one.co_consts if type(inner) is type(one)]
            # A proxy is not asked for its code: that would run code of the app.
            named = [functions.get(name) for name in one.co_names]
            todo += [function.__code__ for function in named if type(function) is _Function]
    return found


def _takes(code, name, thing):
    """Whether a function empties the buffer of this name, or takes from it, or puts another in its place."""
    return (name in code.co_names or name in code.co_freevars) and empties(code, name, thing)


def empties(code, name, thing):
    if issubclass(type(thing), collections.deque):
        return not _TAKES.isdisjoint(code.co_names)
    if id(code) not in _emptying:
        _emptying[id(code)] = code, _emptied(code)
    names = _emptying[id(code)][1]
    return names is None or name in names


_emptying = {}
"""By id of code: that code, held so that the id stays its own; the names of what it takes from, None for any."""


def _emptied(code):
    """The names of what a function takes from, None for any."""
    steps = code.co_code[::2]
    if _DELETE_SUBSCR in steps:
        return None
    if _may_hide(code, steps):
        return _emptied_by_steps(code)
    known = set(zip(steps, code.co_code[1::2]))  # noqa: B905
    found = {code.co_names[place] for step, place in known if step in _STORING}
    locals_ = {code.co_varnames[place] for step, place in known if step == _STORE_FAST}
    return found if found.isdisjoint(locals_) else _emptied_by_steps(code)


def _may_hide(code, steps):
    """Whether it takes more than a look at each step by itself to know what a function takes from."""
    said = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_consts)
    return (
        not _HIDING.isdisjoint(steps) or not all(map(_NAMED_TAKES.isdisjoint, said))
        or len(code.co_names) > 256 or len(code.co_varnames) > 256
        or _SLICE_STORED in steps
        or (_KEY_STORED in steps and (_KEY_READ in steps or slice in map(type, code.co_consts)))
    )  # fmt: skip


def _emptied_by_steps(code):
    """The same, for which one has to know what comes before each step: to have them told takes a while."""
    found = set()
    known, heap = [(None, None)] * 4, False  # what the last steps do, and with what
    also, heaps = {}, {"heappop"}  # what has another name in this function
    read, stored = set(), set()  # of what under which key
    for does, said in _steps(code):
        of = [one[1] if one[0] is None or one[0].startswith("LOAD") else None for one in known]
        if does == "STORE_FAST" and of[3] is not None:
            also[said] = also.get(of[3], of[3])
            heaps.update([said] if of[3] in heaps else ())
        elif does in ("STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF") or (heap and does.startswith("LOAD")):
            found.add(said)
        elif said in _TAKES and does.startswith("LOAD"):
            found.add(of[1] if known[3][0] == "BINARY_SUBSCR" else of[3])
        elif does == "STORE_SLICE":
            found.add(of[1])
        elif does == "STORE_SUBSCR" and (known[3][0] == "BUILD_SLICE" or type(of[3]) is slice):
            found.add(of[2] if type(of[3]) is slice else of[0])
        elif does in ("BINARY_SUBSCR", "STORE_SUBSCR") and known[3][0] == "LOAD_CONST":
            (read if does == "BINARY_SUBSCR" else stored).add((of[2], of[3]))
        known, heap = known[1:] + [(does, said)], said in heaps or (heap and not does.startswith("CALL"))
    found |= {name for name, _ in read & stored}
    return found | {also[name] for name in found & also.keys()}


def _steps(code):
    """What each step of a function does, and with what, as Python 3.11 has it."""
    for step in dis.get_instructions(code):
        if type(step.argval) is tuple and "_FAST" in step.opname:  # from 3.13: two in one
            for does, said in zip(re.findall("(LOAD|STORE)_FAST", step.opname), step.argval):  # noqa: B905
                yield does + "_FAST", said
        elif step.opname == "BINARY_OP" and step.argrepr == "[]":  # from 3.14
            yield "BINARY_SUBSCR", None
        else:
            yield step.opname, step.argval


def _waits_inside(thing):
    """Whether what an object has may be who waits for it: a condition's, an event's or a queue's own."""
    return _kind_of(thing).waits_inside or size(thing) is not None


class Given(object):
    """What a partial or a method that a way leads to calls its function with."""

    def __init__(self, way, name):
        self._way, self._name = way, name

    def __call__(self):
        thing = self._way()
        return getattr(thing, self._name, None) if type(thing) in (functools.partial, types.MethodType) else None


def size(thing):
    """How much is in a queue or a buffer, without taking its lock; None for what is none."""
    kind = _kind_of(thing)
    if not kind.may_have_size:
        return None
    if kind.is_plain:
        return len(thing)
    if kind.tells_size:
        return thing.qsize()
    inner = getattr(thing, "__dict__", {}).get("queue", getattr(thing, "__dict__", {}).get("_queue"))
    return len(inner) if isinstance(inner, (list, collections.deque)) else None


def far_size(thing):
    """The same, and of a dictionary also all that is in what it holds, and what it counts: all may be under one key."""
    if type(thing) in (set, bytearray):
        return len(thing)
    if type(thing) in (io.BytesIO, io.StringIO):
        return _written(thing)
    if not issubclass(type(thing), dict):
        return size(thing)
    todo, known, found = [thing], set(), 0
    while todo:
        one = todo.pop()
        if len(known) == _MOST_WITHIN:
            return dict.__len__(thing)
        kind = _kind_of(one).holder
        if kind is None and _is_queue(one):
            found += size(one)
        if id(one) in known or (kind is None and not _has_attributes(one)):
            continue
        known.add(id(one))
        found += kind.__len__(one) if kind is not None else 0
        found += _counted(one) if kind is dict else 0
        todo += [each for each in gc.get_referents(one) if type(each) not in _SIMPLE]
    return found


def _counted(thing):
    numbers = list(itertools.islice(dict.values(thing), _MOST_WITHIN))
    return sum(numbers) if {type(one) for one in numbers} == {int} else 0


def _written(thing):
    try:
        return type(thing).tell(thing)
    except ValueError:  # it is closed
        return 0


def holds(thing):
    return issubclass(type(thing), _BUFFERS) or type(thing) in (io.BytesIO, io.StringIO)
