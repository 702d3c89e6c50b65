"""Leader election: decisions, the content of the Lease, and replicas that freeze and lose responses at any moment."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentqueue_operator.controller.kubernetes.leader_election import (
    DURATION_S,
    LAST_WRITE_S,
    MAX_DURATION_S,
    STEP_DOWN_S,
    Create,
    LeaseRecord,
    ObservedLease,
    Renew,
    Step,
    Take,
    Term,
    Wait,
    decide,
    observe,
)
from agentqueue_operator.controller.kubernetes.leader_elector import held_spec, record_of, released_spec

OTHERS = LeaseRecord("other", 15.0, "t0", 1)


def seen(holder: str = "other", *, duration_s: float = 15.0, since_s: float = 0.0) -> ObservedLease:
    return ObservedLease(LeaseRecord(holder, duration_s, "t0", 1), since_s)


@pytest.mark.parametrize(
    ("observed", "now_s", "step"),
    [
        pytest.param(None, 0.0, Create(), id="there-is-none"),
        pytest.param(seen("me"), 100.0, Renew(), id="ours-however-old"),
        pytest.param(seen(""), 0.0, Take(), id="let-go"),
        pytest.param(seen(), 15.0, Wait("other"), id="seen-for-just-its-duration"),
        pytest.param(seen(), 15.1, Take(), id="not-renewed-in-time"),
        pytest.param(seen(duration_s=30.0), 29.0, Wait("other"), id="it-asked-for-longer"),
        pytest.param(seen(duration_s=1e9), MAX_DURATION_S + 1, Take(), id="but-not-for-ever"),
    ],
)
def test_what_to_do_about_a_lease(observed: ObservedLease | None, now_s: float, step: Step) -> None:
    assert decide(observed, me="me", now_s=now_s) == step


def test_any_change_of_the_record_shows_that_its_holder_is_alive() -> None:
    first = observe(None, OTHERS, 0.0)
    assert observe(first, OTHERS, 9.0) is first
    assert observe(first, LeaseRecord("other", 15.0, "t1", 1), 9.0).since_s == 9.0


def test_a_term_ends_before_anybody_else_s_can_begin() -> None:
    term = Term(0.0)
    assert term.leads(STEP_DOWN_S - 0.1)
    assert not term.leads(STEP_DOWN_S)
    assert term.write_budget_s(9.0) == LAST_WRITE_S - 9.0
    assert term.write_budget_s(STEP_DOWN_S) == 0.0
    assert STEP_DOWN_S < LAST_WRITE_S < DURATION_S


@pytest.mark.parametrize(
    ("spec", "record"),
    [
        ({}, LeaseRecord("", DURATION_S, "", 0)),
        (None, LeaseRecord("", DURATION_S, "", 0)),
        ({"holderIdentity": None, "leaseDurationSeconds": 0}, LeaseRecord("", DURATION_S, "", 0)),
        (
            {"holderIdentity": "a", "leaseDurationSeconds": 30, "renewTime": "t", "leaseTransitions": 4},
            LeaseRecord("a", 30.0, "t", 4),
        ),
    ],
)
def test_any_content_of_a_lease_is_accepted(spec: Any, record: LeaseRecord) -> None:
    assert record_of({"spec": spec}) == record


def test_a_lease_taken_over_counts_a_transition_and_one_renewed_keeps_its_beginning() -> None:
    first = held_spec(None, Create(), me="a", at="t1")
    assert (first["holderIdentity"], first["acquireTime"], first["leaseTransitions"]) == ("a", "t1", 0)
    again = held_spec({"spec": first}, Renew(), me="a", at="t2")
    assert (again["acquireTime"], again["renewTime"], again["leaseTransitions"]) == ("t1", "t2", 0)
    other = held_spec({"spec": again}, Take(), me="b", at="t3")
    assert (other["holderIdentity"], other["acquireTime"], other["leaseTransitions"]) == ("b", "t3", 1)
    free = released_spec({"spec": other}, at="t4")
    assert record_of({"spec": free}) == LeaseRecord("", 1.0, "t4", 1)


@dataclass
class Server:
    """A Lease with optimistic locking. Requests may arrive late, and responses may be lost."""

    version: int = 0
    spec: dict[str, Any] | None = None

    def read(self) -> tuple[int, dict[str, Any] | None]:
        return self.version, dict(self.spec) if self.spec else None

    def write(self, seen_version: int, spec: dict[str, Any]) -> bool:
        if seen_version != self.version:
            return False
        self.version, self.spec = self.version + 1, spec
        return True


@dataclass
class Replica:
    """The elector's round in steps, between which a process may freeze."""

    name: str
    server: Server
    clock: Callable[[], float]
    observed: ObservedLease | None = None
    term: Term | None = None
    read: tuple[int, dict[str, Any] | None] | None = None
    looked_at: float = 0.0
    sent: tuple[float, int, dict[str, Any]] | None = None
    writes: list[float] = field(default_factory=list)
    """Latest time at which each running write may still reach the server."""

    def look(self) -> None:
        self.looked_at = self.clock()
        self.read = self.server.read()

    def send(self) -> None:
        """Decide on what was read, and send the write."""
        if self.read is None:
            return
        (version, spec), self.read = self.read, None
        live = {"spec": spec} if spec else None
        self.observed = observe(self.observed, record_of(live), self.looked_at) if live else None
        step = decide(self.observed, me=self.name, now_s=self.clock())
        if isinstance(step, Wait):
            self.term = None
            return
        at = self.clock()
        self.sent = (at, version, held_spec(live, step, me=self.name, at=f"{self.name}{at}"))

    def arrive(self, *, lost: bool) -> None:
        """Let the write reach the server. Its response may be lost."""
        if self.sent is None:
            return
        (at, version, spec), self.sent = self.sent, None
        if self.server.write(version, spec) and not lost:
            self.observed = ObservedLease(record_of({"spec": spec}), at)
            self.term = Term(at)

    def work(self) -> None:
        """Begin a write of a reconcile, with the deadline that the client sets."""
        write_budget_s = self.term.write_budget_s(self.clock()) if self.term else 0.0
        if write_budget_s > 0:
            self.writes.append(self.clock() + write_budget_s)

    def turn(self) -> None:
        """Run a whole round without a fault."""
        self.look()
        self.send()
        self.arrive(lost=False)

    def stop(self) -> None:
        """End cleanly: no write is running any more, and the Lease is released."""
        self.writes.clear()
        self.term = self.sent = None
        version, spec = self.server.read()
        if spec and spec["holderIdentity"] == self.name:
            self.server.write(version, released_spec({"spec": spec}, at=f"{self.name}-"))


ACTIONS = st.tuples(
    st.integers(0, 1),
    st.sampled_from(["turn", "turn", "turn", "work", "work", "look", "send", "arrive", "lose", "stop"]),
    st.sampled_from([0.0, 0.1, 2.0, 9.9, 15.1]),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@example([(0, "turn", 0.0), (1, "turn", 9.9), (0, "work", 5.2), (1, "turn", 0.0)])  # frozen, and taken over at once
@given(st.lists(ACTIONS, max_size=40))
def test_two_replicas_never_write_at_the_same_time(actions: list[tuple[int, str, float]]) -> None:
    now, server = [0.0], Server()
    replicas = [Replica(name, server, lambda: now[0]) for name in "ab"]
    for who, action, then_s in actions:
        replica = replicas[who]
        match action:
            case "arrive" | "lose":
                replica.arrive(lost=action == "lose")
            case _:
                getattr(replica, action)()
        writing = {it.name for it in replicas if any(until > now[0] for until in it.writes)}
        leading = {it.name for it in replicas if it.term and it.term.leads(now[0])}
        assert len(writing | leading) <= 1, (writing, leading)
        now[0] += then_s


def test_replicas_that_take_turns_elect_one_and_then_another() -> None:
    now, server = [0.0], Server()
    first, second = Replica("a", server, lambda: now[0]), Replica("b", server, lambda: now[0])

    for _ in range(20):
        first.turn()
        second.turn()
        now[0] += 2.0
        assert first.term
        assert first.term.leads(now[0])
        assert second.term is None
    died_at = now[0]
    while second.term is None:  # the first one has died
        now[0] += 2.0
        second.turn()
    assert now[0] - died_at <= 20.0
