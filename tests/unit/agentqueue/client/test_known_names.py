"""The cache of the job names that workers know."""

import pytest

from agentqueue.client import known_names
from agentqueue.client.known_names import QUIET_S, KnownNames, unknown_job


def test_a_name_that_is_known_once_is_known_for_good() -> None:
    known = KnownNames()
    assert not known.may_send("q", "search")
    known.note("q", ["search", "tick"])
    assert known.may_send("q", "search")
    assert known.may_send("q", "tick")
    assert not known.may_send("q", "serch")
    assert not known.may_send("other", "search")


def test_a_queue_without_workers_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(known_names, "monotonic", lambda: clock)
    known = KnownNames()
    known.note("q", [])
    assert known.may_send("q", "any")
    assert not known.may_send("other", "any")
    clock += QUIET_S
    assert not known.may_send("q", "any")
    known.note("q", [])
    known.note("q", ["search"])
    assert not known.may_send("q", "any")
    assert known.may_send("q", "search")


def test_the_nearest_name_and_the_way_out_are_said() -> None:
    assert unknown_job("q", "serch", ["search"], next_step="Send it.").endswith("did you mean 'search'? Send it.")
    assert unknown_job("q", "x", ["search", "tick"], next_step="Send it.").endswith("there is search, tick. Send it.")
    assert unknown_job("q", "x", ["search"]).endswith("; there is search")
