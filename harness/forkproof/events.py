"""What an event is: the one place that says which there are, and what each of them has.

All have `t` (seconds of CLOCK_MONOTONIC), `pid`, `start` and `event`; the probe's also `n`, their number in the
process, from 0. Fields in braces may lack; one that is not named may stand beside, if it is a plain value or a list of
them. A reader refuses a line that is no such event, so that whoever judges a history can rely on the types and ranges
given here. Whole numbers fit into 64 bits, numbers are finite, texts are Unicode.

>>> parse(b'{"t": 1.5, "pid": 7, "start": 70, "event": "stopped", "seconds": 0.25}')["seconds"]
0.25
>>> parse(b'{"t": 1.5, "pid": 7, "start": 70, "event": "stopped", "seconds": "soon"}')
Traceback (most recent call last):
    ...
ValueError: stopped: seconds: input should be a valid number
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import CoreSchema, SchemaValidator
from pydantic_core import core_schema as schemas

from forkproof.scenario import ParkPoint

_MOST = 2**63 - 1
_TEXT = schemas.str_schema(strict=True)
_FLAG = schemas.bool_schema(strict=True)
_WHOLE = schemas.int_schema(strict=True, ge=0, le=_MOST)
_SIGNED = schemas.int_schema(strict=True, ge=-_MOST, le=_MOST)
_NUMBER = schemas.float_schema(strict=True, ge=-1e12, le=1e12, allow_inf_nan=False)
_TIME = schemas.float_schema(strict=True, ge=0, le=1e12, allow_inf_nan=False)
_PLAIN = schemas.nullable_schema(schemas.union_schema([_FLAG, _SIGNED, _NUMBER, _TEXT]))
_DIGITS = schemas.str_schema(strict=True, pattern="^[0-9]{1,9}$")
_STACK_FILE = schemas.str_schema(strict=True, pattern=r"^stacks/[0-9]+-[0-9]+\.txt$")
"""A file of the run's folder, and of no other."""


_Fields = dict[str, schemas.TypedDictField]


def _list(of: CoreSchema, length: int | None = None) -> CoreSchema:
    return schemas.list_schema(of, strict=True, min_length=length, max_length=length)


def _dict(keys: CoreSchema, values: CoreSchema) -> CoreSchema:
    return schemas.dict_schema(keys, values, strict=True)


def _maybe(schema: CoreSchema) -> CoreSchema:
    return schemas.nullable_schema(schema)


_EXTRA = schemas.union_schema([_PLAIN, _list(_PLAIN)])


def _has(_also: dict[str, CoreSchema] | None = None, /, **must: CoreSchema) -> _Fields:
    fields = {name: schemas.typed_dict_field(schema, required=True) for name, schema in must.items()}
    return fields | {name: schemas.typed_dict_field(schema, required=False) for name, schema in (_also or {}).items()}


def _object(fields: _Fields) -> CoreSchema:
    return schemas.typed_dict_schema(fields, strict=True, extra_behavior="allow", extras_schema=_EXTRA)


_TEXTS = _list(_TEXT)
_WHOLES = _list(_WHOLE)
_COUNTS = _dict(_TEXT, _WHOLE)
_PAIRS = _list(_list(_TEXT, 2))
_LOOP = {"loop": _TEXT, "birth": _TEXT}
_FAULT = {"fault": _TEXT, "index": _WHOLE}
_PARK = {"park": _WHOLE, "who": _TEXT, "at": schemas.literal_schema([point.value for point in ParkPoint])}
_SIGNAL = {"number": _WHOLE, "signal": _TEXT}
_PROCESSES = _list(_object(_has({"command": _TEXT}, pid=_WHOLE, start=_WHOLE)))
_BESIDE = _list(_object(_has(thread=_maybe(_TEXT), at=_maybe(_TEXT))))
_ANSWER = _list(_object(_has({"copied": _FLAG}, loop=_TEXT, birth=_TEXT, alive=_maybe(_FLAG))))
_THREADS = _list(_object(_has()))
_UNITS = _list(
    _object(
        _has(
            {"main": _FLAG, "inherited": _FLAG, "open": _FLAG, "waiting": _WHOLES, "far": _WHOLES},
            birth=_TEXT,
            alive=_FLAG,
            running=_FLAG,
            tid=_maybe(_WHOLE),
            print=_maybe(_TEXT),
            at=_TEXTS,
            job=_maybe(_TEXT),
            sizes=_WHOLES,
        )
    )
)
"""`alive` is what its owner sees, `running` whether anything runs it here, `sizes` how much is in each queue of it,
`waiting` in each of them that is more than a deque, `far` in each that it gets at through other objects."""

EVENTS: Mapping[str, _Fields] = {
    # The probe's. A process's first; then what it is.
    "process": _has({"python": _TEXT}, ppid=_WHOLE),
    "role": _has({"slot": _maybe(_WHOLE)}, role=schemas.literal_schema(["arbiter", "worker", "child"])),
    # `slot` where one is meant, `child` for child_exit.
    "hook": _has({"slot": _maybe(_WHOLE), "child": _WHOLE}, name=_TEXT),
    # `site` is `worker_class` for the worker's own; `saved` are the modules that are patched by then.
    "patch": _has({"saved": _TEXTS}, site=_TEXT, flags=_dict(_TEXT, _FLAG)),
    # `keywords` of patch_all, and those that are `off` unless told otherwise; `names` {name: `patched`, `removed`,
    # `original`}; `stale` [[name, original]]: names in modules that still mean what gevent has replaced.
    "patched": _has({"when": _TEXT, "stale": _PAIRS, "off": _TEXTS}, keywords=_TEXTS, names=_dict(_TEXT, _TEXT)),
    "early.made": _has(name=_TEXT),  # its module, and what it is
    # `user` is `request` or a loop; `native` [[path, `lock`, `queue`, `socket`]].
    "early.used": _has(name=_TEXT, user=_TEXT, greenlet=_FLAG, native=_PAIRS),
    # `defined_at` is the file:line of its body; `birth` its birth id.
    # Of an app that is watched also `thread` and `daemon`; `user` is where its own code started it, `own`
    # also from where that was called, `at` the frames, `copy_of` the birth in the parent that it goes back to.
    "loop.created": _has(
        {
            "defined_at": _maybe(_TEXT),
            "thread": _maybe(_TEXT),
            "daemon": _maybe(_FLAG),
            "user": _maybe(_TEXT),
            "own": _TEXTS,
            "starter": _maybe(_TEXT),
            "copy_of": _maybe(_TEXT),
            "at": _TEXTS,
        },
        **_LOOP,
        kind=_TEXT,
        site=_maybe(_TEXT),
    ),
    # Its first turn in this process; `thread` is a class.
    "loop.begin": _has({"tid": _WHOLE, "thread": _maybe(_TEXT)}, **_LOOP, cell=_WHOLE),
    "loop.subscribed": _has(**_LOOP),  # Redis has confirmed
    "loop.end": _has(**_LOOP, error=_maybe(_TEXT)),  # null for a return
    "handled": _has(**_LOOP, message=_TEXT),
    "listening": _has(address=_EXTRA),
    "blocked": _has({"seconds": _NUMBER}, number=_WHOLE),  # this worker now sleeps natively in a request
    # In a child: what was `beside` the one that forked, and what it left behind.
    "fork": _has({"parent": _WHOLE}, beside=_BESIDE, imports=_TEXTS, locks=_TEXTS),
    "park.reached": _has({"native": _FLAG}, **_PARK, fork=_WHOLE),
    "park.released": _has(**_PARK, fork=_WHOLE),
    "park.failed": _has(**_PARK, fork=_WHOLE, reason=_TEXT, absent=_FLAG),
    # A worker's first use of what is parked.
    "park.use": _has(**_PARK),
    "park.used": _has(**_PARK, error=_maybe(_TEXT)),
    # Of an app that is watched: what its gunicorn is set to, once the first worker is forked.
    "server": _has(
        {"config": _maybe(_TEXT), "max_requests": _WHOLE, "reload": _FLAG, "threads": _WHOLE, "tls": _FLAG},
        workers=_WHOLE,
        worker_class=_TEXT,
        preload=_FLAG,
        timeout=_WHOLE,
        graceful_timeout=_WHOLE,
        address=_EXTRA,
    ),
    "child": _has(birth=_TEXT, child=_WHOLE),  # the process that a loop of this birth is
    "ended": _has(birth=_TEXT, child=_WHOLE),  # that process, ended by one that has inherited it
    # One look: where the main thread stands, whether that is in the hub's loop, and each loop's thread or greenlet.
    "look": _has(
        at=_TEXTS,
        inside=_maybe(_FLAG),
        iteration=_maybe(_WHOLE),
        units=_UNITS,
        others=_list(_object(_has())),
    ),
    "refused": _has(address=_TEXT),  # with --offline
    "watch.failed": _has(error=_TEXT),  # a defect of ours, that did the app no harm
    # The supervisor's, from here on.
    "look.asked": _has(number=_WHOLE, asked=_TEXTS, deaf=_TEXTS),  # `deaf` have not answered
    # `tasks` {`pid-start`: {task: how often it has given up the processor by itself}}; `locked` {`pid-start`: [task]},
    # those that wait without an end.
    "tasks": _has({"locked": _dict(_TEXT, _WHOLES)}, tasks=_dict(_TEXT, _dict(_TEXT, _WHOLE))),
    "booted": _has(seconds=_NUMBER),  # every slot of a watched app has answered
    "caused": _has(command=_TEXT, code=_maybe(_SIGNED)),  # a command of the user's that makes work
    # `warm`: a nest has forked it.
    "launch": _has({"command": _TEXTS, "namespace": _FLAG, "warm": _FLAG}, arbiter=_WHOLE),
    # `control` turns; `granted` seconds of an idle machine; `ticks` {`pid-start`: {cell: count}}, `gone` [`pid-start`].
    "sample": _has(
        {"turn": _WHOLE, "control": _WHOLE, "granted": _NUMBER, "gone": _TEXTS},
        ticks=_dict(_TEXT, _dict(_DIGITS, _WHOLE)),
    ),
    # A process of the server that somebody else stopped with a signal, or Redis.
    "halted": _has({"what": _TEXT}, target=_WHOLE),
    # `slots` ought to have a worker; `arbiter` is its pid.
    "window.open": _has({"slots": _WHOLES, "arbiter": _maybe(_WHOLE)}, window=_WHOLE, after=_TEXT, healed=_FLAG),
    "window.close": _has(window=_WHOLE, turns=_WHOLE, control=_WHOLE),
    "fault.invoke": _has(**_FAULT),
    "fault.ok": _has({"target": _WHOLE, "new": _maybe(_WHOLE), "code": _WHOLE}, **_FAULT),  # and its other facts
    "fault.fail": _has(**_FAULT, error=_TEXT),
    "plugin.defect": _has(plugin=_TEXT, error=_TEXT),  # of something of another package
    "fault.heal": _has(**_FAULT),  # what was done to take it back
    "outlived": _has(fault=_TEXT, processes=_TEXTS, seconds=_NUMBER),  # workers of before that did not go in time
    "fault.healed": _has(**_FAULT, healed=_FLAG),  # whether the server has come through it
    "request.invoke": _has(request=_WHOLE),
    "request.ok": _has({"slot": _maybe(_WHOLE), "threads": _THREADS}, request=_WHOLE, worker=_TEXT, loops=_ANSWER),
    "request.fail": _has({"error": _TEXT}, request=_WHOLE),
    "request.info": _has({"error": _TEXT}, request=_WHOLE),
    "publish.invoke": _has(message=_TEXT, loop=_TEXT),
    "publish.ok": _has({"receivers": _maybe(_SIGNED)}, message=_TEXT, loop=_TEXT),
    "publish.info": _has({"error": _TEXT}, message=_TEXT, loop=_TEXT),
    "numsub.invoke": _has(loop=_TEXT),
    "numsub.ok": _has(loop=_TEXT, count=_SIGNED),  # subscribed connections
    "numsub.info": _has(loop=_TEXT, error=_TEXT),
    # What a Redis tells: `clients` {host:port of each: subscriptions}, `channels` {name: subscribers}, or why nothing.
    "redis": _has({"error": _TEXT}, window=_WHOLE, address=_TEXT, clients=_COUNTS, channels=_COUNTS),
    # `on` {`pid-start`: {task: [inode of a socket it is blocked on]}}, `blind` {`pid-start`: why}.
    "waits": _has(on=_dict(_TEXT, _dict(_TEXT, _WHOLES)), blind=_dict(_TEXT, _TEXT)),
    # `sockets` {descriptor: inode}.
    "resources": _has({"reload": _WHOLE}, target=_TEXT, fds=_WHOLE, threads=_WHOLE, sockets=_dict(_TEXT, _WHOLE)),
    # When it is new or has changed.
    "socket": _has(inode=_WHOLE, family=_TEXT, state=_TEXT, local=_TEXT, peer=_TEXT),
    "signal.invoke": _has({"target": _WHOLE}, **_SIGNAL),
    "signal.ok": _has(**_SIGNAL, seconds=_NUMBER),
    "signal.fail": _has(**_SIGNAL, error=_TEXT),
    "signal.info": _has(**_SIGNAL, error=_TEXT),
    # After the fault `index`: what it `ended`, and what lived `below` that.
    "orphans": _has(index=_WHOLE, ended=_TEXTS, below=_TEXTS, left=_PROCESSES, seconds=_NUMBER),
    # A bound that had passed, and how far it had been stretched.
    "bound": _has({"stretch": _NUMBER, "slots": _WHOLES}, what=_TEXT, seconds=_NUMBER),
    "lost": _has(workers=_WHOLE),  # so many ended before one had booted
    # `log` was cut; a `folder` or `processes` ended the run.
    "limit": _has({"limit": _WHOLE}, what=_TEXT, found=_maybe(_WHOLE)),
    # A process that hung: the frames of its threads, and what they wait on.
    "stack": _has({"threads": _list(_TEXTS), "waits": _TEXTS}, target=_TEXT, file=_STACK_FILE),
    "deaf": _has(
        target=_TEXT, waits=_TEXTS
    ),  # one that hung and could not tell: Python has ended in it, or never begun
    "log": _has(
        {"stream": _TEXT, "by": _TEXT}, line=_TEXT
    ),  # what the server printed; by which worker, where that is known
    "exit": _has(child=_WHOLE, status=_SIGNED),  # as os.waitstatus_to_exitcode; the supervisor reaped it
    "left": _has(processes=_PROCESSES),  # alive when the bound of a stop had passed
    "killed": _has(processes=_PROCESSES),  # what the supervisor ended
    "usage": _has(supervisor=_NUMBER, server=_NUMBER),  # seconds of CPU, of all that has ended
    "stopped": _has(seconds=_NUMBER),  # how long the server took to stop
}

_OTHERWISE: dict[str, _Fields] = {
    "resources": _has({"reload": _WHOLE}, target=_TEXT, error=schemas.str_schema(strict=True, min_length=1)),
}
"""What an event may have instead: why one may not look."""

NAMES = frozenset(EVENTS)
"""All events that there are."""


@functools.cache
def _validator() -> SchemaValidator:
    every = _has({"n": _WHOLE}, t=_TIME, pid=_WHOLE, start=_WHOLE, event=_TEXT)
    choices: dict[Any, CoreSchema] = {name: _object(every | fields) for name, fields in EVENTS.items()}
    for name, fields in _OTHERWISE.items():
        choices[name] = schemas.union_schema([choices[name], _object(every | fields)], mode="left_to_right")
    return SchemaValidator(schemas.tagged_union_schema(choices, "event", strict=True))


def parse(line: bytes) -> dict[str, Any]:
    """The event in a line; ValueError, with the field and what is wrong with it, where there is none."""
    try:
        found: dict[str, Any] = _validator().validate_json(line)
    except ValidationError as error:
        raise ValueError(_why(error)) from None
    return found


def _why(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    message = first["msg"][:1].lower() + first["msg"][1:]
    if first["type"].startswith("union_tag"):
        return "there is no such event"
    if first["type"] == "json_invalid":
        return message[:100]
    event, *path = (str(part)[:40] for part in first["loc"]) if first["loc"] else ("",)
    where = f"{event}: {'.'.join(path)}: " if path else ""
    return (where + message)[:200]
