"""What a deployment asks of gevent: which calls of `patch_all` each role makes, and what they say together.

>>> from forkproof.scenario import from_dict
>>> what = from_dict({
...     "loops": [{"name": "a"}],
...     "patches": [{"site": "config_first_line", "flags": {"thread": False}}],
...     "server": {"worker_class": "gevent"},
... })
>>> [call.site for call in calls(what, "worker")]
['config_first_line', 'worker_class']
>>> asked(calls(what, "arbiter"), "thread").wanted, asked(calls(what, "worker"), "thread").contradicted
(False, True)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from forkproof.scenario import PatchSite, Scenario

WORKER_CLASS = "worker_class"
"""The site of the call that a gevent worker class makes by itself: `patch_all()`."""

NEEDS = {"dns": "socket", "aggressive": "select", "Event": "thread"}
"""Keywords that only qualify another one."""

OFF = frozenset({"sys"})
"""Keywords that every gevent takes for False where nobody says anything."""

KEYWORDS = (
    "socket", "dns", "time", "select", "aggressive", "thread", "Event", "os", "ssl", "subprocess", "signal", "queue",
)  # fmt: skip
"""Those that patch something. Of the others gevent says that they do nothing on any Python 3 that it supports."""

_CONFIG = (PatchSite.INTERPRETER_START, PatchSite.CONFIG_FIRST_LINE, PatchSite.CONFIG_AFTER_IMPORTS)
_APP = (PatchSite.APP_FIRST_LINE, PatchSite.APP_AFTER_IMPORTS, PatchSite.IN_THREAD)


@dataclass(frozen=True)
class Call:
    """One call of `patch_all`."""

    site: str
    flags: Mapping[str, bool] = field(default_factory=dict)

    def patches(self, keyword: str, off: Collection[str] = OFF) -> bool:
        """Whether it asks for what the keyword stands for, where gevent leaves alone what is `off` unless told."""
        needed = NEEDS.get(keyword)
        return self.flags.get(keyword, keyword not in off) and (needed is None or self.patches(needed, off))

    def refuses(self, keyword: str) -> bool:
        """Whether it says in so many words that this is not to be patched."""
        return self.flags.get(keyword) is False


@dataclass(frozen=True)
class Asked:
    """The calls that ask for one keyword, and those that refuse it, by their place in the sequence."""

    by: tuple[int, ...]
    refused_by: tuple[int, ...]

    @property
    def wanted(self) -> bool:
        """Whether any call asks for it."""
        return bool(self.by)

    @property
    def contradicted(self) -> bool:
        """Whether one call asks for it and another refuses it: then it cannot be as each of them says."""
        return bool(self.by and self.refused_by)


def calls(scenario: Scenario, role: str) -> list[Call]:
    """The calls that reach a role, in order: the arbiter's own, or a worker's and those that it inherits."""

    def at(*sites: PatchSite) -> list[Call]:
        return [Call(site.value, patch.flags) for site in sites for patch in scenario.patches if patch.site is site]

    app = at(*_APP)
    found = at(*_CONFIG) + (app if scenario.server.preload else [])
    if role == "worker":
        found += at(PatchSite.POST_FORK)
        if scenario.server.worker_class.is_gevent:
            found.append(Call(WORKER_CLASS))
        found += [] if scenario.server.preload else app
    return found


def asked(sequence: Sequence[Call], keyword: str, off: Collection[str] = OFF) -> Asked:
    """What a sequence of calls says of one keyword; `off` are those that this gevent leaves alone unless told."""
    return Asked(
        tuple(index for index, call in enumerate(sequence) if call.patches(keyword, off)),
        tuple(index for index, call in enumerate(sequence) if call.refuses(keyword)),
    )
