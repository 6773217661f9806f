"""The words of docs/the-original-report.md."""

from __future__ import annotations

from forkproof.original_report_words import (
    ARBITER,
    GEVENT_MONKEY,
    GEVENT_OS,
    GEVENT_WORKER,
    MULTIPROCESSING,
    PATCH_OS,
    THREAD_POOL,
    THREADING,
    Words,
)

_NEVER_ENDS = f"""\
TERM does not end it: the thread in the master is no daemon, and Python waits for such threads ({THREADING})."""
_KILLED = f"""\
On TERM the worker waits for its thread, which is no daemon, until gunicorn kills it once `graceful_timeout` has
passed ({THREADING})."""
_CAUGHT = """\
Now and then the fork catches the native thread inside an import, see the scenario with many boots."""
_IN_AN_IMPORT = """\
The listener's name look-up makes the native thread import what it needs for the first time: gevent's thread pool, or
Python's `idna` codec. A fork that catches it there leaves the worker with a half-made module ("Cannot import
'ThreadPool'", "unknown encoding: idna"), so that it dies once it has booted and is replaced where the master notices;
or with an import lock that nobody gives back, so that it is up and never answers. Where the thread is ahead of the
fork, or behind it, all is well."""
_LATE = f"""\
On the newest stack the killed worker is mostly not replaced: the master's queue was made before the application
patched, so the master waits in a native call and gevent never gets to report the death ({ARBITER}, {PATCH_OS}). The
gunicorn of the time waited in `select.select`, which the patch did reach."""


def _spelt(word: str) -> str:
    return word.replace("_", " ")


ENGLISH = Words(
    page="the-original-report.md",
    introduction="""\
# The original report

forkproof began with one user's report. He ran gunicorn with one worker of the class `GeventWebSocketWorker` and a
Flask application. The application called `gevent.monkey.patch_all()` and started, at its entry, a `threading.Thread`
that listened to Redis in a `while True`. He saw three things:

- (a) The loop ran in the worker as well. There its thread was shown as `_DummyThread`, in the master as `Thread`.
- (b) Of the two loops one stopped now and then, for good.
- (c) With `patch_all(thread=False)` there was no copy, but from time to time this line: `Exception ignored in:
  <module 'gevent.threading' ...> AttributeError: ... no attribute '_after_fork'`.

He stated that patching more than once patches the union of all flags that are true. He proposed to start the thread
in `on_starting`; to end each turn with `gevent.sleep(0.1)`; plan 1: blocking work in a thread, with
`patch_all(thread=False)`; plan 2: blocking work in a `multiprocessing.Process`, with `patch_all()`.

He does not say how the master came to run the application's code. Two ways are tried throughout: `preload`, and a
configuration file that imports the module with the thread (`config import`). `no preload` is the control, in which
the worker alone runs it. His threads and processes were not daemons, and neither are these.

In short:

- (a) is so, on both stacks, and gevent means it so. Without preload there is no copy.
- (b) is real, but his reason for it does not fit: greenlets of two processes cannot keep each other from running.
  Three other reasons were found: the fork catches the loop in a name look-up, and the copy waits for ever; the master
  never runs gevent's loop, and the original stands still; both read one connection, and each message reaches one.
- (c) needs Python 3.6 or older. The one way to it that was found does not need `thread=False`.
- The union of flags is so. It also undoes `thread=False` in every gevent worker.
- `on_starting` helps only where nothing was patched before it, and where the fork does not catch its thread inside an
  import. `gevent.sleep` cures loops that hold each other up in one process, and no copy.
- Plan 1 keeps the work to the master; without preload it blocks the worker. Plan 2 multiplies the work each time that
  a worker dies, or leaves it with the master.
- Where TERM was sent it never ended well, since threads and processes that are no daemons are waited for: the server
  stays, or gunicorn has to kill the worker.
- With current gunicorn, preload and a patch in the application are worse than in his time: the master hardly runs its
  greenlets, and mostly does not replace a worker that dies ([finding](../findings/late-patch-no-respawn/README.md)).

This page is made by `python -m forkproof.original_report`; `--check` runs everything again and fails where a verdict
differs. A cell gives the verdict and in how many runs, of those that could tell, the claim was broken. `-` is not
applicable. *ran in* counts the runs in which the loop had a turn in that place inside a window. A claim that
came later has a row only where a scenario has run since. The claims have [pages](../README.md#two-commands), and their
words are in the [glossary](glossary.md).""",
    sections={
        "copy": (
            "(a) A second copy of the loop",
            f"""\
A patched thread is a greenlet, that is, memory, and a fork copies memory; native threads are not copied ({GEVENT_OS}).
After the fork Python forgets all threads but the one that forked, so the copy finds no `Thread` of its own and is
given a `_DummyThread`. The same birth id in both places tells that it is a copy and not a second start. gunicorn has
known of it since 2013 ([#478](https://github.com/benoitc/gunicorn/issues/478)). `show_thread` has a turn every 50 ms,
as a loop that polls; `listen_redis` waits for messages.""",
        ),
        "stop": (
            "(b) One of the two loops stops",
            f"""\
His reason: of two greenlets one runs at a time, so one that blocks keeps the other from running. The first three
scenarios do that: `work` never gives way. The other loop stands still indeed, and so does everything else in that
process, which he does not report.

His two loops were an original and its copy, in two processes. What stops one of those, in these runs:

- The fork catches the loop in a name look-up. gevent looks names up, and addresses too, in a native thread pool;
  after a fork it makes the pool anew and drops what was under way ({THREAD_POOL}, `_on_fork`). The copy waits for its
  answer for good. Who is faster settles it, so it happens now and then, as he says.
- The master never enters gevent's loop, so the original stands still: `symptom-a-copy-preload` on the newest stack.
- Original and copy read one connection, and each message reaches one of them: the last scenario here.""",
        ),
        "after_fork": (
            "(c) thread=False, and the line about _after_fork",
            """\
There is no copy: a native thread does not survive a fork. The line, however, has another cause.

After a fork, Python up to 3.6 calls `sys.modules["threading"]._after_fork()`
([ceval.c](https://github.com/python/cpython/blob/3.6/Python/ceval.c), `PyEval_ReInitThreads`) and prints what is
raised as "Exception ignored". gevent from 1.3 on puts `gevent.threading` in that place for as long as it imports
dnspython for its resolver ([_patcher.py](https://github.com/gevent/gevent/blob/1.4.0/src/gevent/_patcher.py)), and
what is imported then may run a command, which forks. gevent said so itself and worked around it in 1.5a4
([commit](https://github.com/gevent/gevent/commit/10764aa465321ee5f338a01b35a661ae0307a0cb),
`cached_platform_architecture`). From Python 3.7 on `threading` registers its own function with
[os.register_at_fork](https://docs.python.org/3/library/os.html#os.register_at_fork), and nothing is looked up by
name.

By hand, beside these runs: on the stack of the time with dnspython 1.16.0, pycryptodome 3.9.9 and
`GEVENT_RESOLVER=dnspython`, an application that looks up a host name printed the line in each of 8 boots with
`thread=False` and preload, in 5 of 5 without `thread=False`, and in 5 of 5 without preload; with the default resolver
in none of 8. So this is a way to the line, and `thread=False` is no part of it. Whether it was his way he does not
say; his report shows Python 3.5.""",
        ),
        "union": (
            "The union of flags",
            f"""\
"Patching several times gives the union of the flags that are True." gevent says the same in its documentation and in
its warning ({GEVENT_MONKEY}). The tables show what was patched after each call.""",
        ),
        "on_starting": (
            "Proposal: start the thread in on_starting",
            """\
The hook runs in the master, before the first fork. Whether the thread is a native one is settled by what was patched
before. A thread in the master cannot reach the websockets of a worker either way.""",
        ),
        "gevent_sleep": (
            "Proposal: gevent.sleep(0.1) at the end of each turn",
            """\
It cures what he took for the reason of (b), loops that hold each other up within a process. It does nothing about
copies.""",
        ),
        "plan_1": (
            "Plan 1: blocking work in a thread, thread=False",
            """\
`task` blocks in a native call each turn and never gives way to gevent; `listen_redis` is the other loop.""",
        ),
        "plan_2": (
            "Plan 2: blocking work in a process",
            """\
`task` runs in a `multiprocessing.Process` (start method fork, not a daemon); `listen_redis` stays a thread, under
`patch_all()`.""",
        ),
    },
    cases={
        "symptom-a-copy-preload": (
            "A second copy of the loop runs in the worker, as a `_DummyThread`.",
            f"""\
It does. What has changed since is the original: from gunicorn 24.0.0 on the master waits in a native queue that was
made before the application patched ({ARBITER}), so its greenlets hardly ever run. On the stack of the time both ran,
and each message was handled twice. {_NEVER_ENDS}""",
        ),
        "symptom-a-copy-config-import": (
            "The same, where the configuration file imports the module.",
            f"""\
Here the patch comes before gunicorn makes its queue, so original and copy both run, on both stacks, and messages are
handled twice. {_NEVER_ENDS}""",
        ),
        "symptom-a-copy-no-preload": (
            "The control: the same application, which the worker alone imports.",
            f"Each loop runs once, in the worker, and there is no copy: nothing is forked after it. {_KILLED}",
        ),
        "symptom-b-one-loop-stops-preload": (
            "Two loops, of which one never gives way.",
            """\
Starting a patched thread lets it run at once. `work` then keeps the master for good, inside the import of the
application: no worker is ever started.""",
        ),
        "symptom-b-one-loop-stops-config-import": (
            "Two loops, of which one never gives way.",
            "The same, inside the configuration file.",
        ),
        "symptom-b-one-loop-stops-no-preload": (
            "Two loops, of which one never gives way.",
            "The same, in the worker: it never comes to its first request.",
        ),
        "symptom-b-copy-lost-in-lookup-preload": (
            "One loop and its copy, as he had them.",
            """\
The listener begins with a name look-up, and the fork follows soon. Where the copy does not run, as was seen in an
earlier round and not in this one, it was caught in that look-up: it never subscribes. On the newest stack the original
mostly stands still, see (a).""",
        ),
        "symptom-b-copy-lost-in-lookup-forced": (
            "The same race, forced: the thread is started in `pre_fork`, right before the fork.",
            """\
Mostly the fork comes before the answer, so the copy never has its first turn: Redis counts one receiver, and the
original alone handles messages. `exactly_one_listener` then holds, since one listener is what was wanted; that there
is a copy is told by `no_copied_thread` all the same, from the worker's answers to requests. Seldom the copy goes on,
and subscribes for itself.""",
        ),
        "symptom-b-shared-connection-config-import": (
            "One loop, its copy, and a worker that is replaced.",
            """\
The first worker's copy subscribed for itself, so messages are handled twice. The second worker is forked once the
original has subscribed: its copy reads the original's connection, Redis counts one receiver, and each message reaches
one of the two by chance. A loop that loses each time looks as if it had stopped.""",
        ),
        "symptom-c-thread-false-preload": (
            "With `patch_all(thread=False)` there is no copy.",
            f"""\
There is none, and the listener goes on in the master when the worker dies. {_CAUGHT} {_LATE} {_NEVER_ENDS}""",
        ),
        "symptom-c-thread-false-config-import": (
            "The same, where the configuration file imports the module.",
            f"""\
There is no copy, and the killed worker is replaced. {_CAUGHT} {_NEVER_ENDS} That the native thread uses gevent's
sockets, from a loop of its own in that thread, went well in these runs; gevent does not promise it.""",
        ),
        "symptom-c-thread-false-many-boots": (
            "The first one again, booted many times, without a fault.",
            _IN_AN_IMPORT,
        ),
        "symptom-c-thread-false-no-preload": (
            "The same, where the worker alone imports it.",
            f"""\
`thread=False` does nothing here: the worker class has called `patch_all()` before it imports the application
({GEVENT_WORKER}), so the thread is a greenlet all the same. It runs well since this listener gives way. {_KILLED}""",
        ),
        "claim-union-of-flags-add": (
            "`thread=False` first, then all.",
            "The second call adds `threading`, and the thread that is started after it is copied.",
        ),
        "claim-union-of-flags-remove": (
            "All first, then `thread=False`.",
            "The second call takes nothing back: `threading` stays patched, and the thread is copied.",
        ),
        "claim-union-of-flags-worker-class": (
            "`thread=False` twice; in between the worker class patches by itself.",
            f"""\
Neither call of ours patches `threading`, yet in the worker it is patched: gunicorn's gevent workers call
`patch_all()` ({GEVENT_WORKER}).""",
        ),
        "proposal-on-starting-no-preload": (
            "Start real threads in `on_starting`.",
            f"""\
Nothing is patched in the master, so the threads are native, stay there, and outlive the workers. So far this works.
{_CAUGHT} {_NEVER_ENDS}""",
        ),
        "proposal-on-starting-preload": (
            "The same with preload, and the patch in the application.",
            f"""\
The application is imported before the hook runs, so the threads are greenlets and are copied. {_LATE} {_NEVER_ENDS}""",
        ),
        "proposal-on-starting-config-import": (
            "The same, with the patch in the configuration file.",
            f"""\
Patched before the hook, hence copied into each worker. The replaced worker's copy reads the original's connection,
see (b). {_NEVER_ENDS}""",
        ),
        "proposal-on-starting-thread-false-preload": (
            "The same, with preload and `thread=False`.",
            f"The threads are native, so there is no copy. {_CAUGHT} {_LATE} {_NEVER_ENDS}",
        ),
        "proposal-on-starting-many-boots": (
            "The first one again, booted many times, without a fault.",
            """\
The native thread imports what its name look-up needs, and the fork can catch it there, as in
`symptom-c-thread-false-many-boots`. Here the master is not patched, so it notices, and replaces a worker
that dies of it.""",
        ),
        "proposal-gevent-sleep-no-preload": (
            "End each turn with `gevent.sleep(0.1)`.",
            "Both loops run in the worker, and it answers: compare `symptom-b-one-loop-stops-no-preload`.",
        ),
        "proposal-gevent-sleep-preload": (
            "The same with preload.",
            """\
`work` is copied. In the master of the newest stack both stand still, see (a).""",
        ),
        "proposal-gevent-sleep-config-import": (
            "The same, where the configuration file imports the module.",
            "All four run: two originals in the master, two copies in the worker.",
        ),
        "plan-1-thread-false-preload": (
            "Blocking work in a thread, with `patch_all(thread=False)`.",
            f"""\
Both threads are native and run side by side in the master; none is in the worker. {_CAUGHT} {_LATE} {_NEVER_ENDS}""",
        ),
        "plan-1-thread-false-config-import": (
            "The same, where the configuration file imports the module.",
            f"As with preload, and the killed worker is replaced. {_CAUGHT} {_NEVER_ENDS}",
        ),
        "plan-1-thread-false-no-preload": (
            "The same, where the worker alone imports it.",
            """\
The plan undone by the union of flags: the worker class has patched threads already, so `task` is a greenlet that
blocks the worker. The listener never begins, no request is answered, and gunicorn has to kill the worker on TERM. The
other fault is left out, since the worker never booted, and so what held without it is unknown.""",
        ),
        "plan-2-process-no-preload": (
            "Blocking work in a process, with `patch_all()`.",
            f"""\
It works until a worker dies. A killed worker ends none of its children, and its successor starts one more, so the
work is done twice from then on. On TERM the worker waits for its thread and its child, neither a daemon, until gunicorn
kills it; the children are left over ({MULTIPROCESSING}).""",
        ),
        "plan-2-process-preload": (
            "The same with preload.",
            f"""\
One process, the master's, whatever happens to workers. The listener is copied as in (a). {_LATE} TERM does not end
it: the master waits for its thread and its process, which are no daemons ({MULTIPROCESSING}).""",
        ),
        "plan-2-process-config-import": (
            "The same, where the configuration file imports the module.",
            f"""\
One process, the master's, and the listener is copied. On the newest stack the worker that exits prints "can only join
a child process": it has inherited the list of its parent's processes and tries to wait for them. TERM does not end
the master: it waits for its thread and its process ({MULTIPROCESSING}).""",
        ),
    },
    lanes={"now": "the newest releases", "then": "releases of the report's time"},
    spelt=_spelt,
    comma=", ",
    semicolon="; ",
    stacks_head=("lane", "stack"),
    stack_of="{lane}: {meaning}",
    after_fork="Counted over all runs of this page:",
    after_fork_lines="{lane}: {lines} such lines in {runs} runs, {native} of them with `thread=False`",
    deployment="Deployment: {deployment}.",
    server="{workers} `{worker_class}` worker, {preload}",
    preload={True: "preload", False: "no preload"},
    patch="{call} at {site}",
    loop="`{name}` ({kind}, {body}, {turn}) at {start}",
    no_yield="no yield of its own",
    faults="then {faults}",
    claims_head=("claim", "loop"),
    verdicts={"held": "held", "broken": "**broken**", "unknown": "unknown"},
    places_head=("loop", "where", "as"),
    ran="ran in {ran}/{runs}",
    no_turn="(no turn)",
    copy="{thread}, a copy",
    losses="A worker ended by itself, {each}.",
    losses_of="{lane}: in {lost} of {runs} runs",
    messages_head=("lane", "messages in the last window", "receivers that Redis counted", "handled by"),
    nobody="nobody",
    patches_head=("lane", "call", "in", "patched after it", "runs"),
)
