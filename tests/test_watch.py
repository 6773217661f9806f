"""What runs inside of a watched app, in interpreters of their own: that it sees what is there, and costs little."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import forkproof

PAYLOAD = Path(forkproof.__file__).parent / "payload"
BEGIN = """
import os, signal, sys
os.environ["FORKPROOF_RUN"] = {folder!r}
sys.path.insert(0, {payload!r})
from forkproof_payload import reach, watch
"""


def watched(code: str, folder: Path, *, early: str = "") -> list[str]:
    """The lines that a program prints in which the watch is begun, after `early`."""
    for name in ("history", "stacks", "ticks"):
        (folder / name).mkdir()
    program = early + BEGIN.format(folder=str(folder), payload=str(PAYLOAD))
    program += "watch.begin(signal.SIGRTMIN + 3, signal.SIGRTMIN + 4)\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(autouse=True)
def _gevent() -> None:
    pytest.importorskip("gevent")


ALL_KINDS = """
def both():
    told, sought = watch._all_greenlets(), watch._search_greenlets()
    kind = gevent.Greenlet
    is_one = lambda one: isinstance(one, kind) and not one.dead and one.parent is not None
    return set(map(id, filter(is_one, told))), set(map(id, filter(is_one, sought)))

import gevent, gevent.pool, gevent.threadpool, threading
class Own(gevent.Greenlet):
    def _run(self):
        gevent.sleep(100)
kept = [Own(), gevent.spawn(gevent.sleep, 100), gevent.spawn_later(50, len, ())]
kept[0].start()
pool = gevent.pool.Pool(2)
pool.spawn(gevent.sleep, 100)
threading.Thread(target=gevent.sleep, args=(100,), daemon=True).start()
gevent.sleep(0.01)
told, sought = both()
print(told == sought, len(told))
for _ in range(5000):
    gevent.spawn(len, ()).join()
print(len(watch._last["greenlets"]._references) < 2000, both()[0] == both()[1] == told)
pid = os.fork()
if pid == 0:
    kept.append(gevent.spawn(gevent.sleep, 100))
    told, sought = both()
    os._exit(not (told == sought and len(told) == {count}))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if hasattr(os, "waitstatus_to_exitcode") else 0)
os._exit(sys.stdout.flush() or 0)
"""


@pytest.mark.parametrize("patched", [True, False])
def test_gevent_tells_of_every_greenlet(patched: bool, tmp_path: Path) -> None:
    first = "from gevent import monkey; monkey.patch_all()\n" if patched else ""
    count = 5 if patched else 4
    code = first + ALL_KINDS.replace("{count}", str(count + 1))
    assert watched(code, tmp_path) == [f"True {count}", "True True", "0"]


def test_greenlets_of_before_the_watch_are_looked_for_once(tmp_path: Path) -> None:
    early = "import gevent\nfirst = gevent.spawn(gevent.sleep, 100)\ngevent.sleep(0)\n"
    code = """
    second = gevent.spawn(gevent.sleep, 100)
    gevent.sleep(0)
    print(first in watch._all_greenlets(), second in watch._all_greenlets())
    """
    assert watched(code, tmp_path, early=early) == ["True True"]


def test_a_look_takes_no_longer_the_more_objects_an_app_has(tmp_path: Path) -> None:
    code = """
    import gevent, time
    loop = gevent.spawn(gevent.sleep, 100)
    gevent.sleep(0)

    def least():
        spent = []
        for _ in range(20):
            begun = time.process_time()
            watch._tell(sys._getframe())
            spent.append(time.process_time() - begun)
        return min(spent)

    few = least()
    kept = [[number] for number in range(400000)]
    many = least()
    begun = time.process_time()
    watch._search_greenlets()
    print(many < few + (time.process_time() - begun) / 4)  # as if each were looked at, it would take all of that
    """
    assert watched(code, tmp_path) == ["True"]


BEHIND = """
import heapq, queue

class Storage:
    def __init__(self):
        self.orders, self.heap, self.past, self.unread, self.kept = [], [], [], queue.Queue(), []

    @staticmethod
    def take(storage):
        heapq.heappop(storage.heap)
        storage.orders.pop()
        storage.past.append(1)

    @property
    def next(self):
        return self.unread.get()

    def clear_kept(self):
        self.kept.clear()

class Proxy:
    @property
    def __dict__(self):
        raise SystemExit("it was asked")
    def __getattr__(self, name):
        raise SystemExit("it was asked")

class Shop:
    def __init__(self):
        self.storage, self.proxy = Storage(), Proxy()

class Clerk:
    def __init__(self):
        self.shop = Shop()

    def run(self):
        self.step()

    def step(self):
        self.shop.proxy
        self.shop.storage.take(self.shop.storage)
        self.shop.storage.next

def names(body, owner):
    return [queue._name for queue in reach.far_queues(body, owner, (), [])]

clerk = Clerk()
print(names(Clerk.run, clerk))
def serve():
    clerk.run()
print(names(serve, None), names(lambda: clerk.shop, None))
clerk.shop.shop = clerk.shop
print(names(Clerk.step, clerk))
"""


def test_the_queues_that_a_loop_gets_at_through_other_objects(tmp_path: Path) -> None:
    """Those that its code takes from, on any way that it names, and nothing of the app's is run for it."""
    found = "['heap', 'orders', 'unread']"
    assert watched(BEHIND, tmp_path) == [found, f"{found} []", found]


def test_pools_that_nobody_has_named_are_told_by_no_number(tmp_path: Path) -> None:
    code = """
    from concurrent.futures import ThreadPoolExecutor
    for pool in (ThreadPoolExecutor(1), ThreadPoolExecutor(1), ThreadPoolExecutor(1, "shard-2")):
        pool.submit(int).result()
    """
    watched(code, tmp_path)
    (history,) = (tmp_path / "history").iterdir()
    events = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    made = [event for event in events if event["event"] == "loop.created"]
    assert [event["loop"] for event in made] == ["ThreadPoolExecutor", "ThreadPoolExecutor", "shard-2"]


GIVEN = """
import collections, concurrent.futures, functools, threading

class Totals:
    def __init__(self):
        self.by_second, self.names, self.heard = collections.defaultdict(dict), {}, []

    def count(self, name):
        self.by_second[0].setdefault(name, []).append(1)
        self.names[name] = len(self.names)

    def flush(self):
        for second in list(self.by_second):
            self.by_second.pop(second)
        return self.names.get(1)

    def hear(self, first, ended):
        self.heard.clear()
        ended.wait()

class Every(threading.Thread):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def run(self):
        self.function()

def closed(totals):
    return lambda: totals.flush()

def told(body, owner):
    return [(queue._name, reach.far_size(queue())) for queue in reach.far_queues(body, owner, [], [])]

totals = Totals()
for given in (totals.flush, closed(totals), functools.partial(Totals.flush, totals)):
    every = Every(given)
    before = told(Every.run, every)
    totals.count("one")
    print(before, told(Every.run, every), told(Every.run, Every(len)))
    totals.flush()
totals.by_second[0] = {number: [] for number in range(400)}
print(told(Every.run, every))
ended = threading.Event()
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    pool.submit(totals.hear, 1, ended)
    print([queue._name for unit in watch._units.values() for queue in unit.far])
    ended.set()
"""


def test_what_a_loop_is_given_to_call_and_what_it_counts_by_key(tmp_path: Path) -> None:
    """A dictionary that it empties counts with all that it holds, so long as that is little; one to remember by not."""
    fills = "[('by_second', 0)] [('by_second', 3)] []"
    assert watched(GIVEN, tmp_path) == [fills, fills, fills, "[('by_second', 1)]", "['heard']"]


ENCLOSED = """
import concurrent.futures, json, os, threading

def batch(sink):
    waiting, seen = [], []

    def add(one):
        waiting.append(one)
        seen.append(one)

    def flush():
        nonlocal waiting
        sink(waiting, len(seen))
        waiting = []

    return add, flush

class Stream:
    def __init__(self):
        self.observers = {}

    def on_next(self, one):
        if one not in self.observers:  # made when something comes
            self.observers[one] = batch(print)
        self.observers[one][0](one)

class Schedule:
    def __init__(self, action):
        self.items, self.ended, self.begun = [(1, action)], threading.Event(), threading.Event()

    def run(self):
        self.begun.set()
        while not self.ended.wait(100):
            self.items[0][1]()

def closed(stream):
    return Schedule(lambda: [flush() for _, flush in stream.observers.values()])

stream = Stream()
first, second = closed(stream), closed(stream)
watch._units[id(stream)] = watch._Own(stream)  # as a greenlet of the server's

def run_first():
    first.run()
"""
GO_ON = """
%s
first.begun.wait()

def told():
    watch._tell(sys._getframe())
    name = "{}-{}.jsonl".format(os.getpid(), watch.probe.here().start)
    lines = open(os.path.join(watch.probe._folder, "history", name)).read().splitlines()
    failed = [line for line in lines if "watch.failed" in line]
    return [unit["far"] for unit in json.loads(lines[-1])["units"]] or failed

def child():
    before = told()
    for _ in range(3):
        stream.on_next("orders")
        print(before, told())
    sys.stdout.flush()

child()
pid = os.fork()
if pid == 0:
    child()
    os._exit(0)
os.waitpid(pid, 0)
first.ended.set()
second.ended.set()
os._exit(0)
"""


@pytest.mark.parametrize(
    "start",
    [
        "threading.Thread(target=run_first, daemon=True).start()",
        # The thread has been started for another job than the one that it is in at the fork.
        "pool = concurrent.futures.ThreadPoolExecutor(1)\nsecond.ended.set()\n"
        "pool.submit(second.run).result()\npool.submit(first.run)",
    ],
    ids=["thread", "job"],
)
def test_what_comes_to_a_lost_thread_in_closures(start: str, tmp_path: Path) -> None:
    """The list that a function puts another in the place of, in the child alone; not the one that only remembers."""
    told = watched(ENCLOSED + GO_ON % start, tmp_path)
    pools = "" if "pool" not in start else ", 0"  # the queue of its executor
    assert told == ["[[]] [[]]"] * 3 + [f"[[3{pools}]] [[{size}{pools}]]" for size in (4, 5, 6)]


MADE_LATER = """
import asyncio, threading

class Box:
    def __init__(self):
        self.things = []

    def take(self):
        self.things.pop()

class Late:
    def consume(self, there):
        self.box = Box()
        there.wait()
        while True:
            threading.Event().wait()
            self.box.take()

async def stay(there):
    there.wait()
    await asyncio.sleep(600)

def serve(there):
    asyncio.run(stay(there))

there = threading.Barrier(3)
late = Late()
for body in (late.consume, serve):
    threading.Thread(target=body, args=(there,), daemon=True).start()
there.wait()
if os.fork() == 0:
    os._exit(0)
print([(unit.body[0], [queue._name for queue in unit.far]) for unit in watch._units.values()])
os._exit(sys.stdout.flush() or 0)
"""


@pytest.mark.parametrize("early", ["", "import asyncio\n"])
def test_what_a_thread_has_made_since_it_began_is_known_before_a_fork(early: str, tmp_path: Path) -> None:
    """What it works on, and the event loop that it alone knows."""
    found = "[('Late.consume', ['things']), ('serve', ['_ready'])]"
    assert watched(MADE_LATER, tmp_path, early=early) == [found]


LOST = """
import collections, functools, io, json, os, sys, threading, types, weakref
over = threading.Event()

def start(target, *args, **kwargs):
    threading.Thread(target=target, args=args, kwargs=kwargs, daemon=True).start()

%s

def told():
    watch._tell(sys._getframe())
    name = "{}-{}.jsonl".format(os.getpid(), watch.probe.here().start)
    lines = open(os.path.join(watch.probe._folder, "history", name)).read().splitlines()
    assert not [line for line in lines if "watch.failed" in line], lines
    return [one for unit in json.loads(lines[-1])["units"] for one in unit["far"]]

pid = os.fork()
if pid == 0:
    told()
    seen = []
    for _ in range(3):
        give("order")
        seen.append(told())
    print(any(len(sizes) == len(set(sizes)) == 3 and sizes == tuple(sorted(sizes)) for sizes in zip(*seen)))
    os._exit(sys.stdout.flush() or 0)
os.waitpid(pid, 0)
os._exit(0)
"""
SLOTTED = """
class Buffer:
    __slots__ = ("orders", "past", "__weakref__")
    def __init__(self):
        self.orders, self.past = [], []
    def take(self):
        self.past.append(self.orders.pop())

def serve(buffer):
    while True:
        over.wait()
        buffer.take()

buffer = Buffer()
start(serve, buffer)
"""
HANDED_OVER = {
    "slot": SLOTTED + "give = lambda one: buffer.orders.append(one)",
    "slot of what has no weak references": SLOTTED.replace(', "__weakref__"', "")
    + "give = lambda one: buffer.orders.append(one)",
    "what a function that it is given names": """
        class Token:
            __slots__ = ("queue", "__weakref__")
            def __init__(self):
                self.queue = collections.deque()
            def run_all(self):
                self.queue.popleft()

        class Runner:
            def __init__(self, token):
                self.token = token
            def begin(self):
                over.wait()
                self.token.run_all()

        def run(main):
            runner = Runner(Token())
            main(runner.token)
            runner.begin()

        lib = types.ModuleType("lib")  # it says of its functions that they are another's
        sys.modules["lib"] = lib
        lib.Token, lib.Runner = Token, Runner
        lib.run = types.FunctionType(run.__code__, vars(lib))
        lib.run.__module__ = "elsewhere"
        del Token, Runner, run

        def main(made):
            global token
            token = made
            begun.set()

        begun = threading.Event()
        start(lib.run, main)
        begun.wait()

        def give(one):
            token.queue.append(one)
    """,
    "class": """
        class Orders:
            waiting = []
            @classmethod
            def serve(cls):
                over.wait()
                cls.waiting.pop()

        start(Orders.serve)

        def give(one):
            Orders.waiting.append(one)
    """,
    "module": """
        state = types.ModuleType("state")
        state.__file__, state.waiting = "/srv/state.py", []
        sys.modules["state"] = state

        def serve():
            over.wait()
            state.waiting.pop()

        start(serve)

        def give(one):
            state.waiting.append(one)
    """,
    "named tuple": """
        Box = collections.namedtuple("Box", "over orders")

        def serve(box):
            box.over.wait()
            box.orders.clear()

        box = Box(over, [])
        start(serve, box)

        def give(one):
            box.orders.append(one)
    """,
    "under a key of what it is given": """
        def serve(box):
            over.wait()
            mine, box["orders"] = box["orders"], []

        box = {"orders": []}
        start(serve, box=box)

        def give(one):
            box["orders"].append(one)
    """,
    "what a partial gives": """
        def serve(pause, orders):
            over.wait(pause)
            orders.pop()

        waiting = []
        start(functools.partial(serve, 100), waiting)

        def give(one):
            waiting.append(one)
    """,
    "passed on": """
        waiting = []

        def flush(orders):
            orders.clear()

        start(lambda: over.wait() and flush(waiting))

        def give(one):
            waiting.append(one)
    """,
    "exchanged with what holds it": """
        class Batch:
            def __init__(self):
                self.rows = []

        class Sender:
            def __init__(self):
                self.batch = Batch()
            def serve(self):
                over.wait()
                mine, self.batch = self.batch, Batch()
                print(mine.rows)

        sender = Sender()
        start(sender.serve)

        def give(one):
            sender.batch.rows.append(one)
    """,
    "weak dictionary": """
        class Session:
            def __init__(self):
                self.orders = []

        sessions = weakref.WeakValueDictionary()
        mine = sessions["mine"] = Session()

        def serve():
            over.wait()
            for session in sessions.values():
                session.orders.clear()

        start(serve)

        def give(one):
            mine.orders.append(one)
    """,
    "of the module of a method": """
        waiting = []

        class Clerk(threading.Thread):
            def run(self):
                over.wait()
                self.flush()

            def flush(self):
                waiting.clear()

        Clerk(daemon=True).start()

        def give(one):
            waiting.append(one)
    """,
    "what a coroutine names": """
        import asyncio
        begun, waiting = threading.Event(), []
        poller = types.ModuleType("poller")
        poller.begun, poller.waiting, poller.__file__ = begun, waiting, "/srv/poller.py"
        sys.modules["poller"] = poller
        poll = "import asyncio\\nasync def poll():\\n begun.set()\\n await asyncio.sleep(100)\\n waiting.pop()\\n"
        eval(compile(poll, "/srv/poller.py", "exec"), vars(poller))
        start(asyncio.run, poller.poll())
        begun.wait()
        del poller.poll

        def give(one):
            waiting.append(one)
    """,
    "one of many": """
        a, b, c, d, e, f, g, h, waiting = ([] for _ in "abcdefghi")

        def serve():
            global a, b, c, d, e, f, g, h
            over.wait()
            a, b, c, d, e, f, g, h = ([] for _ in "abcdefgh")
            waiting.clear()

        start(serve)

        def give(one):
            waiting.append(one)
    """,
    "queues by name": """
        import queue
        waiting = {"orders": queue.Queue()}

        def serve():
            over.wait()
            waiting.popitem()[1].get()

        start(serve)

        def give(one):
            waiting["orders"].put(one)
    """,
    "counts": """
        counts = collections.Counter()

        def serve():
            global counts
            over.wait()
            mine, counts = counts, collections.Counter()

        start(serve)

        def give(one):
            counts[one] += 1
    """,
    "set": """
        waiting = set()
        start(lambda: over.wait() and waiting.pop())

        def give(one):
            waiting.add((one, len(waiting)))
    """,
    "bytes": """
        waiting = bytearray()

        def serve():
            over.wait()
            waiting[:] = b""

        start(serve)

        def give(one):
            waiting.extend(one.encode())
    """,
    "text": """
        waiting = io.StringIO()

        def serve():
            global waiting
            over.wait()
            waiting = io.StringIO()

        start(serve)

        def give(one):
            waiting.write(one)
    """,
    "heap under other names": """
        import heapq
        heap = []

        def serve():
            over.wait()
            mine = heap
            pop = heapq.heappop
            pop(mine)

        start(serve)

        def give(one):
            heapq.heappush(heap, one)
    """,
    "no Thread": """
        import _thread
        waiting = []

        def serve():
            over.wait()
            waiting.pop()

        _thread.start_new_thread(serve, ())

        def give(one):
            waiting.append(one)
    """,
}
REMEMBERED = {
    "slot": SLOTTED + "give = lambda one: buffer.past.append(one)",
    "class": HANDED_OVER["class"].replace("cls.waiting.pop()", "cls.waiting.append(0)"),
    "module": HANDED_OVER["module"].replace("state.waiting.pop()", "state.waiting.append(0)"),
    "under a key": HANDED_OVER["under a key of what it is given"].replace(
        ', box["orders"] = box["orders"], []', " = box"
    ),
    "set": HANDED_OVER["set"].replace("waiting.pop()", "waiting.add(0)"),
    "passed on": HANDED_OVER["passed on"].replace("orders.clear()", "orders.append(0)"),
    "weak set": """
        class Context:
            def __init__(self):
                self.sockets = weakref.WeakSet()
            def close(self):
                self.sockets.clear()

        def serve(context):
            over.wait()
            context.close()

        context, open_ = Context(), []
        start(serve, context)

        def give(one):
            open_.append(Context())
            context.sockets.add(open_[-1])
    """,
    "Python's": """
        import linecache

        def serve():
            over.wait()
            linecache.cache.clear()

        start(serve)

        def give(one):
            linecache.cache[one, len(linecache.cache)] = one
    """,
}


@pytest.mark.parametrize("code", HANDED_OVER.values(), ids=HANDED_OVER)
def test_the_ways_to_what_comes_to_a_lost_thread(code: str, tmp_path: Path) -> None:
    """Each of these leads to what fills in the process where the thread is not."""
    assert watched(LOST % textwrap.dedent(code), tmp_path) == ["True"]


@pytest.mark.parametrize("code", REMEMBERED.values(), ids=REMEMBERED)
def test_what_a_lost_thread_takes_nothing_from(code: str, tmp_path: Path) -> None:
    """It only remembers by it, or it is Python's own."""
    assert watched(LOST % textwrap.dedent(code), tmp_path) == ["False"]


ENDED = """
import glob, json, multiprocessing, threading
made = multiprocessing.get_context("fork").Process
own, daemon, other = (made(target=threading.Event().wait, daemon=daemon) for daemon in (True, True, False))
for process in (own, daemon, other):
    process.start()
own.terminate()
own.join()
if os.fork() == 0:
    sys.exit()
os.wait()
lines = [json.loads(line) for path in glob.glob(watch.probe._folder + "/history/*") for line in open(path)]
told = [(line["child"] == daemon.pid, line["pid"] != os.getpid()) for line in lines if line["event"] == "ended"]
print(told)
other.kill()
"""


def test_the_modules_that_hold_nothing_of_an_apps(tmp_path: Path) -> None:
    """Python's, gunicorn's and what watches."""
    names = ["sys", "json.decoder", "gunicorn.arbiter", "forkproof_payload.reach", "gevent_of_mine", "__main__", None]
    code = f"""
    import json, types
    sys.modules["gevent_of_mine"] = types.ModuleType("gevent_of_mine")
    print([reach._is_no_apps(name) for name in {names}])
    """
    assert watched(code, tmp_path) == [str([True] * 4 + [False, False, True])]


DIED = """
import glob, json, multiprocessing, os

def work():
    raise OSError("gone")

class Own(multiprocessing.get_context("fork").Process):
    def run(self):
        super().run()

made = [Own(target=work), Own(target=len, args=((),)), Own(target=sys.exit, args=(1,))]
for process in made:
    process.start()
    process.join()
lines = [json.loads(line) for path in glob.glob(watch.probe._folder + "/history/*") for line in open(path)]
print([(line["error"], line["pid"] == made[0].pid) for line in lines if line["event"] == "loop.end"])
print([process.exitcode for process in made])
"""


def test_a_process_that_died_of_an_exception(tmp_path: Path) -> None:
    """Not one that is done, or that exits by itself."""
    assert watched(DIED, tmp_path) == ["[('OSError: gone', True)]", "[1, 0, 1]"]


def test_a_process_that_is_ended_by_one_that_has_inherited_it(tmp_path: Path) -> None:
    """As multiprocessing does with daemons when a process exits; not by the one that has started it."""
    assert watched(ENDED, tmp_path) == ["[(True, True)]"]
