"""The deployment of a scenario as a user would have written it: app, background work, configuration, what they use."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from forkproof.reproducer import around
from forkproof.scenario import (
    BrokerAddress,
    EarlyImport,
    EarlyPlace,
    EarlyThing,
    Guard,
    Loop,
    LoopBody,
    LoopKind,
    LoopStart,
    ParkPoint,
    PatchSite,
    Policy,
    Scenario,
    WorkerClass,
    YieldCall,
)

HOOKS = {
    LoopStart.ON_STARTING: "server",
    LoopStart.WHEN_READY: "server",
    LoopStart.PRE_FORK: "server, worker",
    LoopStart.POST_FORK: "server, worker",
    LoopStart.POST_WORKER_INIT: "worker",
}
"""gunicorn's hooks, with their arguments."""

_CONTEXTS = {
    LoopKind.PROCESS: "fork",
    LoopKind.PROCESS_SPAWN: "spawn",
    LoopKind.PROCESS_FORKSERVER: "forkserver",
}


@dataclass(frozen=True)
class Watched:
    """What the program of a claim has to leave for the one that looks: files, or words in its answers."""

    ticks: bool = False
    """A file for each loop, birth and process in ticks/, touched in each turn."""
    created: bool = False
    """The same file when a loop is created, so that one which never has a turn is known."""
    handled: bool = False
    """A line for each message in the file `handled`."""
    handles: str = ""
    """The loop of which answers tell what `is_alive()` says of it."""
    patched: Sequence[str] = ()
    """The log tells of each ready process whether these names are patched."""
    half: bool = False
    """Answers tell the modules that are half imported in their process."""
    native: bool = False
    """A file `native` once a request uses, in a greenlet, a lock that is native although gevent has patched."""

    def of(self, loop: Loop) -> Watched:
        """What that loop has to leave: nothing ticks but the one whose handle is asked, where one is."""
        return self if self.handles in ("", loop.name) else replace(self, ticks=False)


@dataclass
class Module:
    """A module's imports and the lines after them."""

    imports: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    redis_host: str = "127.0.0.1"

    def define(self, head: str, body: Iterable[str]) -> None:
        """Add a function, with an empty line before it."""
        self.lines += ["", head, *("    " + line for line in body)]

    def text(self, first: Iterable[str] = ()) -> str:
        """The module, with `first` before everything else; imports of one root stand together."""
        standard = sorted(name for name in self.imports if not _is_foreign(name))
        foreign = sorted(name for name in self.imports if _is_foreign(name))
        parts = [list(first), [*standard, *foreign], self.lines]
        return "\n".join("\n".join(part).strip("\n") + "\n" for part in parts if part)


def _is_foreign(line: str) -> bool:
    root = line.split()[1].partition(".")[0]
    return root in ("gevent", "redis", "flask", "flask_socketio", "background") or root.startswith("early_")


def why_not(scenario: Scenario) -> str:
    """What of a scenario a program of a few lines cannot have, and what to do instead; empty where there is nothing."""
    parks = around.park_problem(scenario)
    on_socket = scenario.surroundings.broker is BrokerAddress.UNIX_SOCKET
    found: list[tuple[object, str, str]] = [
        (parks, parks, "run it without, or write it by hand"),
        (on_socket, "surroundings.broker: Redis on a socket file", "run it with 'ip'"),
    ]
    by = scenario.server.started_by
    found.append(
        (by != "gunicorn", f"server.started_by: the server {by!r} of another package", "run it with 'gunicorn'")
    )
    for index, loop in enumerate(scenario.loops):
        body = f"loops.{index}.body: the body {loop.body.value!r} of another package"
        found.append((loop.body is not loop.body.like, body, f"run it with {loop.body.like.value!r}"))
    for met, what, instead in found:
        if met:
            return f"{what} is more than a few lines can have; {instead}, and export that if it still breaks"
    return ""


def packages(scenario: Scenario) -> list[str]:
    """The packages that the program imports."""
    found = ["gunicorn"]
    needs_gevent = any(loop.kind.needs_gevent or loop.yields.call is YieldCall.GEVENT_SLEEP for loop in scenario.loops)
    if scenario.patches or scenario.server.worker_class.is_gevent or needs_gevent:
        found += ["gevent", "greenlet"]
    if scenario.server.worker_class is WorkerClass.GEVENTWEBSOCKET:
        found.append("gevent-websocket")
    if scenario.server.worker_class is WorkerClass.TORNADO:
        found.append("tornado")
    surroundings = scenario.surroundings
    if any(loop.needs_redis for loop in scenario.loops) or any(
        one.what.needs_redis for one in surroundings.early_imports
    ):
        found += ["redis", "hiredis"] if surroundings.hiredis else ["redis"]
    has_tasks = any(loop.kind is LoopKind.SOCKETIO_TASK for loop in scenario.loops)
    if has_tasks or any(patch.site is PatchSite.APP_AFTER_IMPORTS for patch in scenario.patches):
        found.append("flask")
    if has_tasks:
        found.append("flask-socketio")
    return found


SERVE = "serve.py"


def executes_itself(scenario: Scenario) -> bool:
    """Whether the master starts itself anew, for which gunicorn has to be a file: its own shadows Python's `http`."""
    return any(fault.fault == "usr2" for fault in scenario.faults)


def files(scenario: Scenario, watched: Watched) -> dict[str, str]:
    """The modules of the deployment, by the names of their files."""
    found = {"app.py": app(scenario, watched), "background.py": background(scenario, watched)}
    for where in EarlyPlace:
        if made := around.early(scenario, where):
            module = _module(scenario)
            module.imports |= {line for one in made for line in one.imports}
            for line in (line for one in made for line in one.made):
                module.lines.append(line.replace("{redis}", _redis(module)) if "{redis}" in line else line)
            found[f"{around.module_of(where)}.py"] = module.text()
    point = around.point_of(scenario)
    if point is not None and point.module:
        found["slow.py"] = point.module
    if executes_itself(scenario):
        found[SERVE] = "from gunicorn.app.wsgiapp import run\n\nrun()\n"
    found["gunicorn.conf.py"] = conf(scenario, watched)
    return found


def _module(scenario: Scenario) -> Module:
    by_name = scenario.surroundings.broker is BrokerAddress.HOST_NAME
    return Module(redis_host="localhost" if by_name else "127.0.0.1")


# --- background.py


def background(scenario: Scenario, watched: Watched) -> str:
    """The loops, and the functions that start them."""
    module = _module(scenario)
    if watched.ticks:
        module.imports |= {"import os", "import pathlib"}
        path = 'pathlib.Path(f"ticks/{loop}.{birth}.{os.getpid()}")'
        module.define("def tick(loop, birth):", [f"{path}.touch()"])
    if watched.handled:
        module.imports.add("import os")
        write = ['with open("handled", "a") as file:', "    print(loop, message.decode(), os.getpid(), file=file)"]
        module.define("def handled(loop, message):", write)
    if watched.handles:
        module.lines += ["", "handles = {}"]
    point = around.point_of(scenario)
    if point is not None:
        module.imports |= {"import os", "import time", *point.imports}
        module.lines += [*around.STAY, *point.lines]
        module.define("def errand():", point.errand)
    for loop in scenario.loops:
        _add_loop(module, scenario, loop, watched.of(loop))
    for start in dict.fromkeys(loop.start for loop in scenario.loops):
        body = [around.REGISTER] if _holds(scenario, start) else []
        body += [
            line
            for loop in scenario.loops
            if loop.start is start
            for line in _start(module, scenario, loop, watched.of(loop))
        ]
        module.define(f"def {starter(scenario, start)}():", body)
    return module.text()


def _holds(scenario: Scenario, start: LoopStart) -> bool:
    """Whether a loop that starts there is held while the master forks."""
    return any(loop.start is start and around.point_of(scenario, loop) is not None for loop in scenario.loops)


def starter(scenario: Scenario, start: LoopStart) -> str:
    """The function of background.py that starts what is started there."""
    starts = {loop.start for loop in scenario.loops}
    return "start" if len(starts) == 1 else f"start_in_{start.value}"


def _native_sleep(scenario: Scenario) -> str:
    return 'monkey.get_original("time", "sleep")' if "gevent" in packages(scenario) else "time.sleep"


def _redis(module: Module) -> str:
    module.imports |= {"import os", "import redis"}
    return f'redis.Redis("{module.redis_host}", int(os.environ["REDIS_PORT"]))'


def _add_loop(module: Module, scenario: Scenario, loop: Loop, watched: Watched) -> None:
    """Define the loop's function and what it shares."""
    native = _native_sleep(scenario)
    told = [f'tick("{loop.name}", birth)'] if watched.ticks else []
    turn = [*told]
    before: list[str] = []
    head = "while True:" if loop.yields.every == 1 else "for turn in itertools.count(1):"
    messages = "pubsub.listen()"
    name = around.name_of(scenario, loop)
    match loop.body:
        case LoopBody.LISTEN | LoopBody.GET_MESSAGE:
            before = [
                f"pubsub = {_redis(module)}.pubsub(ignore_subscribe_messages=True)",
                f'pubsub.subscribe("{loop.name}")',
            ]
            heard = [f'handled("{loop.name}", message["data"])'] if watched.handled else []
            if loop.body is LoopBody.LISTEN:
                many = "turn, message in enumerate(pubsub.listen(), 1)"
                head = "for message in pubsub.listen():" if loop.yields.every == 1 else f"for {many}:"
                turn += heard or ([] if told else ["pass"])
            else:
                turn.insert(0, "message = pubsub.get_message(timeout=0.05)")
                turn += ["if message is not None:", *(f"    {line}" for line in heard)] if heard else []
        case LoopBody.BLPOP:
            before = [f"client = {_redis(module)}"]
            turn.insert(0, f'found = client.blpop("{loop.name}", timeout=0.05)')
            if watched.handled:
                turn += ["if found is not None:", f'    handled("{loop.name}", found[1])']
        case LoopBody.QUEUE_GET:
            module.imports.add("import queue")
            module.lines += ["", f"{name}_queue = queue.Queue()"]
            turn += ["try:", f"    {name}_queue.get(timeout=0.05)", "except queue.Empty:", "    pass"]
        case LoopBody.LOCK:
            module.imports |= {"import threading", "import time"}
            module.lines += ["", f"{name}_lock = threading.Lock()"]
            turn = [f"with {name}_lock:", *(f"    {line}" for line in turn), "    time.sleep(0.01)"]
        case LoopBody.LOGGER:
            module.imports |= {"import logging", "import os"}
            module.lines += [
                "",
                f'{name}_log = logging.getLogger("{loop.name}")',
                f"{name}_log.addHandler(logging.StreamHandler(open(os.devnull, 'w')))".replace("'", '"'),
                f"{name}_log.setLevel(logging.INFO)",
                f"{name}_log.propagate = False",
            ]
            turn.append(f'{name}_log.info("a turn")')
        case LoopBody.CPU:
            turn.append("sum(range(20000))")
        case LoopBody.SLEEP:
            pass
    if loop.guard is not Guard.NONE:
        module.imports |= {"import os", "import time"}
        # A key of each run: a lock is kept by who has died with it.
        key = f'"{loop.name}:guard:" + os.environ["RUN"]'
        if loop.guard is Guard.LOCK:
            taken = [f"lock = {_redis(module)}.lock({key})", "while not lock.acquire(blocking=False):"]
            before = [*taken, "    time.sleep(0.05)", *before]
        else:
            lines = [
                f"key = {key}",
                "while not (client.set(key, token, nx=True, px=1000) or client.get(key) == token):",
                "    time.sleep(0.05)",
                "client.pexpire(key, 1000)",
            ]
            module.define(f"def hold_{name}(client, token):", lines)
            lease = [f"guard, token = {_redis(module)}, os.urandom(8).hex().encode()", f"hold_{name}(guard, token)"]
            before = [*lease, *before]
            if loop.body is LoopBody.LISTEN:
                # With none for longer than it lasts a lease that is renewed by messages alone runs out.
                hear = ["message = pubsub.get_message(timeout=0.05)", f"hold_{name}(guard, token)"]
                hear = [
                    "while True:",
                    *(f"    {line}" for line in [*hear, "if message is not None:", "    yield message"]),
                ]
                module.define(f"def hear_{name}(pubsub, guard, token):", hear)
                messages = f"hear_{name}(pubsub, guard, token)"
                head = head.replace("pubsub.listen()", messages)
            else:
                turn = [*turn, f"hold_{name}(guard, token)"]
    modules, uses = around.used_in_turns(scenario, loop)
    if uses:
        before = [*(f"import {module}" for module in modules), *before]
        module.imports |= {"import time"} if any("time." in line for line in uses) else set()
        turn = [*turn, *uses]
    if around.point_of(scenario, loop) is not None:
        turn = [*turn, 'if fork["near"]:', "    errand()"]
    if loop.kind is LoopKind.RUN_IN_THREAD:
        heard = [f'handled("{loop.name}", message["data"])'] if watched.handled else []
        imported = [f"import {module}" for module in modules]
        done = [*imported, *told, *heard, *uses] or ["pass"]
        module.define(f"def {name}({_birth_argument(watched, 'birth, ')}message):", done)
        return
    if loop.kind is LoopKind.TIMER:
        if loop.yields.every > 1:
            turn = [f"for turn in range({loop.yields.every}):", *(f"    {line}" for line in turn or ["pass"])]
        if _goes_on(loop):
            turn = [*before, "while True:", *(f"    {line}" for line in [*turn, "yield"])]
        else:
            turn = [*before, *turn, f"set_{name}({_birth_argument(watched)})"]
        module.define(f"def {name}({_birth_argument(watched)}):", turn)
        return
    pause = _pause(module, loop, native)
    if pause and loop.yields.every > 1:
        pause = [f"if turn % {loop.yields.every} == 0:", *(f"    {line}" for line in pause)]
        if loop.body is not LoopBody.LISTEN:
            module.imports.add("import itertools")
    elif not pause:
        head = f"for message in {messages}:" if loop.body is LoopBody.LISTEN else "while True:"
    turn = [line for line in turn if line != "pass"] if pause else turn
    body = [*before, head, *(f"    {line}" for line in [*turn, *pause] or ["pass"])]
    module.define(f"def {name}({_birth_argument(watched)}):", body)


def _goes_on(loop: Loop) -> bool:
    """Whether a timer's turns share what the first of them makes."""
    return loop.needs_redis


def _birth_argument(watched: Watched, text: str = "birth") -> str:
    return text if watched.ticks else ""


def _pause(module: Module, loop: Loop, native: str) -> list[str]:
    seconds = f"{loop.yields.seconds:g}"
    match loop.yields.call:
        case YieldCall.GEVENT_SLEEP:
            module.imports.add("import gevent")
            return [f"gevent.sleep({seconds})"]
        case YieldCall.TIME_SLEEP:
            module.imports.add("import time")
            return [f"time.sleep({seconds})"]
        case YieldCall.NATIVE_SLEEP:
            module.imports.add("import time" if native.startswith("time") else "from gevent import monkey")
            return [f"{native}({seconds})"]
        case YieldCall.NONE:
            return []


def _start(module: Module, scenario: Scenario, loop: Loop, watched: Watched) -> list[str]:
    """What creates and starts the loop, and keeps its handle where that is asked for."""
    name = around.name_of(scenario, loop)
    lines: list[str] = []
    arguments = ""
    if watched.ticks:
        lines.append('birth = f"{os.getpid()}-{os.urandom(3).hex()}"')
        arguments = "birth"
    if watched.created and not loop.kind.is_process:
        lines.append(f'tick("{loop.name}", birth)')
    args = f", args=({arguments},)" if arguments else ""
    daemon = f", daemon={loop.daemon}"
    call = f"{name}, {arguments}".rstrip(", ")
    unit = f"{name}_unit"
    keeps = watched.handles == loop.name
    kept, alive = f"{unit} = " if keeps else "", f"{unit}.is_alive"
    match loop.kind:
        case LoopKind.THREAD:
            module.imports.add("import threading")
            made = f"threading.Thread(target={name}{args}{daemon})"
            lines += [f"{unit} = {made}", f"{unit}.start()"] if keeps else [f"{made}.start()"]
        case LoopKind.TIMER:
            module.imports.add("import threading")
            goes_on, given = _goes_on(loop), f"{name}({arguments})"
            what = "fire" if goes_on else f"{name}{', (birth,)' if arguments else ''}"
            body = ["def fire():", "    next(turns)", f"    set_{name}(turns)"] if goes_on else []
            body += [f"timer = threading.Timer({loop.yields.seconds:g}, {what})"]
            body += [f"timer.daemon = {loop.daemon}", "timer.start()"]
            module.define(f"def set_{name}({'turns' if goes_on else arguments}):", body)
            lines.append(f"set_{name}({given if goes_on else arguments})")
        case LoopKind.EXECUTOR:
            module.imports.add("from concurrent.futures import ThreadPoolExecutor")
            module.lines += ["", f"{name}_pool = ThreadPoolExecutor(max_workers=1)"]
            lines.append(f"{kept}{name}_pool.submit({call})")
            alive = f"lambda: not {unit}.done()"
        case LoopKind.RUN_IN_THREAD:
            handler = name
            if arguments:
                module.imports.add("import functools")
                handler = f"functools.partial({name}, birth)"
            # What is no name of a function may be no keyword of Python's either.
            channel = f"{name}={handler}" if name == loop.name else f'**{{"{loop.name}": {handler}}}'
            lines += [
                f"pubsub = {_redis(module)}.pubsub(ignore_subscribe_messages=True)",
                f"pubsub.subscribe({channel})",
                f"{kept}pubsub.run_in_thread(sleep_time={loop.yields.seconds:g}{daemon})",
            ]
        case LoopKind.GREENLET:
            module.imports.add("import gevent")
            lines.append(f"{kept}gevent.spawn({call})")
            alive = f"lambda: not {unit}.dead"
        case LoopKind.SOCKETIO_TASK:
            more = f", {arguments}" if arguments else ""
            lines += ["import app", f"app.socketio.start_background_task({name}{more})"]
        case LoopKind.GEVENT_THREADPOOL:
            module.imports.add("import gevent")
            lines.append(f"{kept}gevent.get_hub().threadpool.spawn({call})")
            alive = f"lambda: not {unit}.ready()"
        case LoopKind.NATIVE_THREAD:
            module.imports.add("from gevent import monkey")
            given = "(birth,)" if arguments else "()"
            lines.append(f'monkey.get_original("_thread", "start_new_thread")({name}, {given})')
        case _:
            module.imports.add("import multiprocessing")
            made = f'multiprocessing.get_context("{_CONTEXTS[loop.kind]}").Process(target={name}{args}{daemon})'
            lines += [f"{unit} = {made}", f"{unit}.start()"] if keeps else [f"{made}.start()"]
    if keeps:
        lines.append(f"handles[birth] = {alive}")
    return lines


# --- app.py and gunicorn.conf.py


def app(scenario: Scenario, watched: Watched) -> str:
    """The application: its patches, its loops, and requests that use what the loops share."""
    module = Module({"import os"})
    used = _uses(scenario)
    early = [line for where in EarlyPlace for line in around.used(scenario, where, "request")]
    module.imports |= {f"import {name}" for name in around.early_modules(scenario)}
    module.imports |= {"import time"} if any("time." in line for line in early) else set()
    module.imports |= _imports_redis(scenario, EarlyPlace.APP)
    first = _patches(scenario, PatchSite.APP_FIRST_LINE)
    late = _patches(scenario, PatchSite.APP_AFTER_IMPORTS)
    if late:
        module.imports |= {"import logging", "import ssl", "import flask"}
        module.imports |= {"import redis"} if "redis" in packages(scenario) else set()
    in_thread = [patch for patch in scenario.patches if patch.site is PatchSite.IN_THREAD]
    if in_thread:
        module.imports.add("import threading")
        late.append("from gevent import monkey")
        for patch in in_thread:
            keywords = f", kwargs={dict(patch.flags)}" if patch.flags else ""
            late += [f"patching = threading.Thread(target=monkey.patch_all{keywords})"]
            late += ["patching.start()", "patching.join()"]
    module.lines += list(dict.fromkeys(late)) if not in_thread else _once(late)
    if any(loop.kind is LoopKind.SOCKETIO_TASK for loop in scenario.loops):
        module.imports |= {"import flask", "import flask_socketio"}
        url = '"redis://127.0.0.1:" + os.environ["REDIS_PORT"]'
        module.lines += ["", f'socketio = flask_socketio.SocketIO(flask.Flask("app"), message_queue={url})']
    starts = {loop.start for loop in scenario.loops}
    at_import, at_request = LoopStart.APP_IMPORT in starts, LoopStart.FIRST_REQUEST in starts
    body: list[str] = []
    if at_request:
        module.lines += ["", "started = []"]
        body += ["if not started:", "    started.append(True)"]
        body += ["    import background", f"    background.{starter(scenario, LoopStart.FIRST_REQUEST)}()"]
    uses_background = watched.handles or (watched.native and any(loop.body.is_shared for loop in scenario.loops))
    body += ["import background"] if (used or uses_background) and not at_import else []
    if watched.native:
        module.imports |= {"import gevent", "import pathlib"}
        body += [
            f"kinds = {{type(lock).__module__ for lock in ({', '.join(around.locks(scenario))},)}}",
            'if gevent.getcurrent().parent is not None and kinds & {"_thread", "_queue"}:',
            '    pathlib.Path("native").touch()',
        ]
    body += [*used, *early]
    body.append('start_response("200 OK", [])')
    if watched.handles:
        module.imports.add("import json")
        body.append("alive = {birth: bool(is_alive()) for birth, is_alive in background.handles.items()}")
        body.append("return [json.dumps([os.getpid(), alive]).encode()]")
    elif watched.half:
        module.imports.add("import sys")
        specs = 'name: getattr(module, "__spec__", None) for name, module in list(sys.modules.items())'
        body.append(f"specs = {{{specs}}}")
        body.append('half = [name for name, spec in specs.items() if getattr(spec, "_initializing", False)]')
        body.append('return [" ".join([str(os.getpid()), *half]).encode()]')
    else:
        body.append('return [b"%d" % os.getpid()]')
    module.define("def app(environ, start_response):", body)
    if at_import:
        module.lines += ["", "import background", f"background.{starter(scenario, LoopStart.APP_IMPORT)}()"]
    return module.text(first)


def _imports_redis(scenario: Scenario, where: EarlyPlace) -> set[str]:
    """`import redis` where that is all that is wanted of it there."""
    early = scenario.surroundings.early_imports
    return {"import redis"} if EarlyImport(what=EarlyThing.IMPORT_REDIS, where=where) in early else set()


def _uses(scenario: Scenario) -> list[str]:
    """What a request does with what loops share, and with what one is held in the middle of."""
    lines = ["background.errand()"] if around.point_of(scenario) is not None else []
    for loop in scenario.loops:
        name = around.name_of(scenario, loop)
        if loop.body is LoopBody.LOCK:
            lines += [f"with background.{name}_lock:", "    pass"]
        elif loop.body is LoopBody.QUEUE_GET:
            lines.append(f"background.{name}_queue.put(None)")
        elif loop.body is LoopBody.LOGGER:
            lines.append(f'background.{name}_log.info("a request")')
    return lines


def _patches(scenario: Scenario, site: PatchSite) -> list[str]:
    calls = [_call(patch.flags) for patch in scenario.patches if patch.site is site]
    return ["from gevent import monkey", *calls] if calls else []


def _call(flags: dict[str, bool]) -> str:
    return f"monkey.patch_all({', '.join(f'{name}={value}' for name, value in flags.items())})"


def _once(lines: list[str]) -> list[str]:
    """Lines of which a repeated import is said once."""
    return [line for index, line in enumerate(lines) if not (line.startswith("from ") and line in lines[:index])]


def conf(scenario: Scenario, watched: Watched) -> str:
    """gunicorn's configuration: settings, hooks, and what is patched and started there."""
    server = scenario.server
    module = Module()
    first = _patches(scenario, PatchSite.CONFIG_FIRST_LINE)
    late = _patches(scenario, PatchSite.CONFIG_AFTER_IMPORTS)
    if late:
        module.imports |= {f"import {name}" for name in ("logging", "queue", "socket", "ssl", "threading")}
    if around.early(scenario, EarlyPlace.CONFIG):
        module.imports.add(f"import {around.module_of(EarlyPlace.CONFIG)}")
    module.imports |= _imports_redis(scenario, EarlyPlace.CONFIG)
    websocket = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
    worker_class = websocket if server.worker_class is WorkerClass.GEVENTWEBSOCKET else server.worker_class.value
    settings: dict[str, object] = {
        "bind": "127.0.0.1:0",
        "workers": server.workers,
        "worker_class": worker_class,
        "threads": server.threads if server.threads > 1 else None,
        "preload_app": server.preload or None,
        "reload": server.reload or None,
        "timeout": server.timeout if server.timeout != 30 else None,
        "graceful_timeout": server.graceful_timeout,
        "max_requests": server.max_requests or None,
        "control_socket": "gunicorn.ctl" if server.control_socket else None,
        "control_socket_disable": None if server.control_socket else True,
    }
    module.lines += [*late, *([""] if late else [])]
    module.lines += [f"{name} = {_literal(value)}" for name, value in settings.items() if value is not None]
    imports, stream, put = around.stream(scenario.surroundings.log, _native_sleep(scenario))
    module.imports |= set(imports)
    module.lines += ["", *stream] if stream else []
    hooks: dict[LoopStart, list[str]] = {}
    if put:
        hooks[LoopStart.ON_STARTING] = [put]
    patches = [_call(patch.flags) for patch in scenario.patches if patch.site is PatchSite.POST_FORK]
    if patches:
        hooks[LoopStart.POST_FORK] = ["from gevent import monkey", *patches]
    if watched.patched:
        for hook, log in ((LoopStart.WHEN_READY, "server"), (LoopStart.POST_WORKER_INIT, "worker")):
            hooks.setdefault(hook, []).extend(_tell_patched(watched.patched, log))
    for loop_start in dict.fromkeys(loop.start for loop in scenario.loops):
        start = ["import background", f"background.{starter(scenario, loop_start)}()"]
        if loop_start in HOOKS:
            hooks.setdefault(loop_start, []).extend(start)
    # At last: what is imported for a loop may take a while.
    hooks.setdefault(LoopStart.POST_WORKER_INIT, []).append('worker.log.info("ready: %s", worker.pid)')
    if any(park.at is ParkPoint.RECV for park in scenario.parks):
        module.imports.add("import time")
        hooks.setdefault(LoopStart.PRE_FORK, []).append("time.sleep(1)  # meanwhile the listener is in recv()")
    for hook, arguments in HOOKS.items():
        if hook in hooks:
            module.define(f"def {hook.value}({arguments}):", hooks[hook])
    starts = {loop.start for loop in scenario.loops}
    if LoopStart.FORK_HOOK in starts:
        module.imports.add("import os")
        body = ["import background", f"background.{starter(scenario, LoopStart.FORK_HOOK)}()"]
        module.define("def in_child():", body)
        module.lines += ["", "os.register_at_fork(after_in_child=in_child)"]
    if LoopStart.CONFIG_IMPORT in starts:
        module.lines += ["", "import background", f"background.{starter(scenario, LoopStart.CONFIG_IMPORT)}()"]
    return module.text(first)


def _tell_patched(names: Collection[str], log: str) -> list[str]:
    parts = [name.rpartition(".") for name in names]
    told = ", ".join(f'"{module}.{name}": monkey.is_object_patched("{module}", "{name}")' for module, _, name in parts)
    return ["from gevent import monkey", f'{log}.log.info("patched: %s", {{{told}}})']


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def interpreter_options(scenario: Scenario) -> list[str]:
    """What stands between the interpreter and gunicorn where the interpreter's start patches."""
    for patch in scenario.patches:
        if patch.site is PatchSite.INTERPRETER_START:
            return ["-m", "gevent.monkey", *(f"--no-{flag}" for flag, on in patch.flags.items() if not on)]
    return []


def policy_in_words(loop: Loop) -> str:
    """Where a loop is meant to run."""
    return _POLICIES[loop.policy]


_POLICIES = {
    Policy.ONCE_PER_SERVICE: "is to run in one process",
    Policy.ONCE_PER_WORKER: "is to run in each worker",
    Policy.ARBITER_ONLY: "is to run in the master alone",
    Policy.INHERIT_ALLOWED: "is to run somewhere",
    Policy.BEST_EFFORT: "may run anywhere",
}
