"""The elector's thread against a Lease that is a dictionary."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from agentqueue_operator.controller.kubernetes import leader_elector as module
from agentqueue_operator.controller.kubernetes.api import DEADLINE_S, ApiServer
from agentqueue_operator.controller.kubernetes.leader_elector import LeaderElector
from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable


class FakeLease(ApiServer):
    """An API server with one Lease."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[str, Any] | None = None
        self.version = 0
        self.trouble: Exception | None = None
        self.calls: list[str] = []
        self.closed = 0

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        deadline_s: float = DEADLINE_S,
    ) -> Any:
        self.calls.append(method)
        if self.trouble is not None:
            raise self.trouble
        if method == "GET":
            if self.live is None:
                raise ApiRefused(404, "NotFound", "no lease")
            return self.live
        seen = body["metadata"].get("resourceVersion", "0")
        if (method == "POST") is (self.live is not None) or seen != str(self.version):
            raise ApiRefused(409, "Conflict", "it has changed")
        self.version += 1
        self.live = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return self.live

    async def close(self) -> None:
        self.closed += 1

    @property
    def holder(self) -> str:
        return str(self.live["spec"]["holderIdentity"]) if self.live else ""


@pytest.fixture
def lease(monkeypatch: pytest.MonkeyPatch) -> FakeLease:
    monkeypatch.setattr(module, "RENEW_S", 0.01)
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    return FakeLease()


Make = Callable[..., LeaderElector]


@pytest.fixture
def make(lease: FakeLease) -> Iterator[Make]:
    made: list[LeaderElector] = []

    def one(me: str = "me", **given: Any) -> LeaderElector:
        options: dict[str, Any] = {"healthy": lambda: True, "on_change": lambda _: None} | given
        made.append(LeaderElector(lambda: lease, namespace="ns", name="aq", me=me, **options))
        return made[-1]

    yield one
    for elector in made:
        elector.stop(5)


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_single_replica_creates_renews_and_releases_the_lease(lease: FakeLease, make: Make) -> None:
    changes: list[bool] = []
    elector = make(on_change=changes.append)
    assert (elector.leads, elector.write_budget_s()) == (False, 0.0)
    elector.start()
    until(lambda: lease.version > 3)
    assert elector.leads
    assert 0 < elector.write_budget_s() <= 14.0
    assert elector.holder == lease.holder == "me"
    elector.stop(5)
    assert (lease.holder, elector.leads, lease.closed) == ("", False, 1)
    assert changes == [True, False]
    elector.stop(5)  # once more does no harm


def test_two_take_turns(lease: FakeLease, make: Make) -> None:
    first, second = make("a"), make("b")
    first.start()
    until(lambda: first.leads)
    second.start()
    until(lambda: second.holder == "a")
    assert not second.leads
    first.stop(5)
    until(lambda: second.leads)
    assert lease.holder == "b"
    assert lease.live is not None
    assert lease.live["spec"]["leaseTransitions"] == 1


def test_a_stuck_replica_releases_the_lease(lease: FakeLease, make: Make) -> None:
    healthy = [True]
    elector = make(healthy=lambda: healthy[0])
    elector.start()
    until(lambda: elector.leads)
    healthy[0] = False
    until(lambda: lease.holder == "")
    assert not elector.leads
    healthy[0] = True
    until(lambda: elector.leads)


def test_without_the_api_server_the_term_ends_by_the_clock(
    lease: FakeLease, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + ahead[0])
    changes: list[bool] = []
    elector = make(on_change=changes.append)
    elector.start()
    until(lambda: elector.leads)
    lease.trouble = ApiUnavailable("no answer")
    asked = len(lease.calls)
    until(lambda: len(lease.calls) > asked + 3)
    before = elector.leads
    ahead[0] += 10.0
    assert (before, elector.leads, elector.write_budget_s()) == (True, False, 0.0)  # some tries may fail
    until(lambda: changes == [True, False])
    lease.trouble = None
    until(lambda: elector.leads)


def test_a_failed_release_does_not_delay_the_end(lease: FakeLease, make: Make) -> None:
    elector = make()
    elector.start()
    until(lambda: elector.leads)
    lease.trouble = ApiUnavailable("no answer")
    elector.stop(5)
    assert (elector.leads, lease.holder) == (False, "me")


def test_a_concurrent_write_wins(lease: FakeLease, make: Make) -> None:
    elector = make()
    elector.start()
    until(lambda: elector.leads)
    taken = {"holderIdentity": "other", "leaseDurationSeconds": 15, "renewTime": "now"}
    lease.version += 1
    lease.live = {"metadata": {"resourceVersion": str(lease.version)}, "spec": taken}
    until(lambda: not elector.leads)
    assert lease.holder == elector.holder == "other"
