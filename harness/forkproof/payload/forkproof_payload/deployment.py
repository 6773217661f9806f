"""The scenario, as seen from inside: what is patched and started on arrival at each line of the deployment."""

import json
import os
import sys

from forkproof_payload import bodies, early, forks, originals, parking, probe
from forkproof_payload.loops import Loop


def _read(name):
    with open(os.path.join(os.environ["FORKPROOF_RUN"], name), "rb") as file:
        return json.loads(file.read().decode("utf-8"))


SCENARIO = _read("scenario.json")
LAUNCH = _read("launch.json")
SERVER = SCENARIO["server"]
AROUND = SCENARIO["surroundings"]
TOKEN = LAUNCH["token"]

if not AROUND["hiredis"]:
    # redis-py takes its own parser where this import fails, in every version.
    sys.modules["hiredis"] = None
LOG = AROUND["log"]

parking.set_up(SCENARIO["parks"], LAUNCH["redis"])

loops = []
"""Every loop that was started in this process or in a process that it was forked from."""

_first_request = [True]


def patches(site):
    """The flags of each `patch_all` call that the scenario has at this site."""
    return [patch["flags"] for patch in SCENARIO["patches"] if patch["site"] == site]


def uses_redis():
    """Whether any loop of the scenario talks to Redis."""
    return LAUNCH["uses_redis"]


def uses_socketio():
    """Whether any loop of the scenario is a background task of Flask-SocketIO's."""
    return any(loop["kind"] == "socketio_task" for loop in SCENARIO["loops"])


def message_queue():
    """What Flask-SocketIO is given, so that several processes can be one server; it takes Redis by address alone."""
    url = "redis://{host}:{port}/{db}".format(**LAUNCH["redis"])
    return {"message_queue": url, "channel": "forkproof:{}:socketio".format(TOKEN)}


_socketio = [None]


def app_has_socketio(socketio):
    """Note the application's Socket.IO server."""
    _socketio[0] = socketio


def own_error_log():
    """Whether gunicorn's error log is to be a file of ours."""
    return LOG != "fast" or any(park.who == parking.CONTROL for park in parking.parks)


def patch(site):
    """Call `patch_all` as often as the scenario says for this site."""
    for flags in patches(site):
        from gevent import monkey

        monkey.patch_all(**flags)
        patched(site, flags)


def patched(site, flags):
    """Record that a patch was made, and which modules are patched since."""
    probe.event("patch", site=site, flags=flags, saved=sorted(originals.saved()))


def begin():
    """Record the patch that was made before anything of ours ran, if it was: gunicorn's re-exec leaves it out."""
    for flags in patches("interpreter_start") if "gevent.monkey" in sys.modules else ():
        patched("interpreter_start", flags)


def watch_worker_patch(worker):
    """Record when the worker class patches by itself, which gevent's do once the worker is forked."""
    patch = getattr(worker, "patch", None)
    if patch is not None:

        def observed():
            patch()
            patched("worker_class", {})

        worker.patch = observed


def patch_in_thread():
    """Call `patch_all` inside a thread, and wait for it."""
    if patches("in_thread"):
        import threading

        thread = threading.Thread(target=patch, args=("in_thread",))
        thread.start()
        thread.join()


def make_early(where):
    """Import, make and register what the scenario has here."""
    if where == "config" and AROUND["fork_hooks"] != "none":
        early.make("fork_hooks_" + AROUND["fork_hooks"], where, None)
    for one in AROUND["early_imports"]:
        if one["where"] == where:
            early.make(one["what"], where, LAUNCH["client"])


def start_loops(site):
    """Create and start the loops that the scenario starts here."""
    for spec in SCENARIO["loops"]:
        if spec["start"] == site:
            channel = "forkproof:{}:{}".format(TOKEN, spec["name"])
            loop = Loop(spec, site, LAUNCH["client"], channel)
            loop.socketio = _socketio[0]
            if AROUND["early_imports"] or AROUND["fork_hooks"] == "lock":
                loop.give_way = early.using(loop.give_way, spec["name"])
            loops.append(loop)
            loop.start()


def hook(name, **fields):
    """Record a hook, then patch and start what belongs there."""
    probe.event("hook", name=name, **fields)
    patch(name)
    if name in ("when_ready", "post_worker_init"):
        probe.event(
            "patched", when=name, keywords=originals.keywords(), off=originals.off(), names=originals.states(),
            stale=originals.stale_names(),
        )
    start_loops(name)


def register_fork_hook():
    """Have `os.fork` run the hook "fork_hook" in every child from now on, where the scenario starts a loop there."""
    if any(spec["start"] == "fork_hook" for spec in SCENARIO["loops"]):
        os.register_at_fork(after_in_child=lambda: hook("fork_hook"))


def request():
    """Answer for this process: who it is, and what it believes of its loops."""
    try:
        # pop() is atomic, so that two first requests at once start the loops once.
        _first_request.pop()
    except IndexError:
        pass
    else:
        start_loops("first_request")
    parking.use()
    early.request()
    for loop in loops:
        loop.body.use()
    return {
        "token": TOKEN,
        "worker": probe.key(),
        "slot": slot,
        "loops": [
            {
                "loop": loop.spec["name"],
                "birth": loop.ticker.birth,
                "alive": loop.alive(),
                "copied": loop.copied(),
            }
            for loop in loops
        ],
        "threads": _threads(),
    }


_blocked = []


def block(number, wanted, seconds):
    """Hold the thread that serves a request in a native sleep, once, where this is the worker that is meant."""
    if slot == wanted and number not in _blocked:
        _blocked.append(number)
        probe.event("blocked", number=number, seconds=seconds)
        bodies.CALLS["native_sleep"](seconds)()
    return request()


slot = None


def become_worker(number):
    """Record that this process is the worker in slot `number`."""
    global slot
    slot = number
    if not forks.ARE_TOLD:
        forks.take_stock()
        dump_stacks_on_signal()
    probe.event("role", role="worker", slot=number)


_watching = []


def watch_forks():
    """Let every child tell of itself first thing, whatever it does then; once, though a reload asks again."""
    dump_stacks_on_signal()
    if forks.ARE_TOLD and not _watching:
        _watching.append(True)
        os.register_at_fork(before=forks.look_around, after_in_child=forks.take_stock)
        os.register_at_fork(after_in_child=dump_stacks_on_signal)


def before_fork(worker):
    """The last that `pre_fork` does: wait for what is to be parked."""
    parking.before_fork(worker, LAUNCH["bounds"]["park"])
    if not forks.ARE_TOLD:
        forks.look_around()


def become_arbiter():
    """Record that this process is the arbiter."""
    probe.event("role", role="arbiter", slot=None)


def give_slots_back(server):
    """What a reload does: those who come now take the places of the workers that there are."""
    for worker in server.WORKERS.values():
        worker.forkproof_leaves = True


_vacant = []


def vacate(server, worker):
    """Note the slot of a worker that is gone, where another one is to have it; TTOU and a reload give it to none."""
    if len(server.WORKERS) < server.num_workers and not hasattr(worker, "forkproof_leaves"):
        _vacant.append(worker.forkproof_slot)


def free_slot(server):
    """The slot of a worker that is gone, else the lowest that no worker of this arbiter holds."""
    staying = (worker for worker in server.WORKERS.values() if not hasattr(worker, "forkproof_leaves"))
    taken = set(getattr(worker, "forkproof_slot", None) for worker in staying)
    while _vacant:
        number = _vacant.pop(0)
        if number not in taken:
            return number
    number = 0
    while number in taken:
        number += 1
    return number


_dumping = []


def dump_stacks_on_signal():
    """Let the supervisor ask for this process's native stacks, whatever it is stuck in.

    faulthandler runs in C, so it answers under a blocked hub too; a real-time signal is one that neither gunicorn nor
    an app uses. Does not see: greenlets that are switched out.
    """
    import faulthandler

    if _dumping and _dumping[-1] == os.getpid():
        return  # a reload runs the configuration again
    _dumping.append(os.getpid())
    path = os.path.join(os.environ["FORKPROOF_RUN"], "stacks", probe.key() + ".txt")
    faulthandler.register(LAUNCH["stack_signal"], file=_StackFile(path), all_threads=True, chain=False)


class _StackFile(object):
    """An open descriptor, in the form that faulthandler takes and keeps."""

    def __init__(self, path):
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def fileno(self):
        return self._descriptor

    def flush(self):
        pass


def _threads():
    import threading

    # Not threading.enumerate(): its lock may be a patched one, or one that a fork left held.
    return [
        {"name": thread.name, "class": type(thread).__name__, "alive": thread.is_alive()}
        for thread in list(threading._active.values())
    ]
