"""What may be said of a broker; nothing is started."""

from __future__ import annotations

import pytest

from forkproof import broker
from forkproof.errors import UsageError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("", broker.BrokerSpec("embedded")),
        ("embedded", broker.BrokerSpec("embedded")),
        ("redis-server", broker.BrokerSpec("redis-server")),
        ("redis-server:/opt/a:b", broker.BrokerSpec("redis-server", binary="/opt/a:b")),
        ("redis://example.org:6380/3", broker.BrokerSpec("url", host="example.org", port=6380, db=3)),
        ("redis://[::1]", broker.BrokerSpec("url", host="::1", port=6379)),
    ],
)
def test_parse(text: str, spec: broker.BrokerSpec) -> None:
    assert broker.parse(text) == spec
    assert broker.parse(str(spec)) == spec


@pytest.mark.parametrize(
    "text",
    [
        "fake",
        "redis-server:",
        "redis://",
        "redis://:6379",
        "redis://h:0",
        "redis://h:port",
        "redis://h:70000",
        "redis://h/x",
        "redis://h/1/2",
        "redis://h/²",
        "redis://h?db=1",
        "rediss://h:1",
        "unix:///tmp/redis.sock",
    ],
)
def test_parse_says_what_is_wrong_and_allowed(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        broker.parse(text)
    assert repr(text) in str(caught.value)
    assert '"redis://host:port[/db]"' in str(caught.value)


@pytest.mark.parametrize("text", ["redis://me:secret@h:1", "redis://:secret@h:1", "rediss://me:secret@h:1"])
def test_a_password_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        broker.parse(text)
    assert "secret" not in str(caught.value)
    assert "@h:1" in str(caught.value)
