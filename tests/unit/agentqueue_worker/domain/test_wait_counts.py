"""Waits are counted from when a job was due, and each is sent to Redis once."""

from bisect import bisect_left
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentqueue.keys import Level
from agentqueue.model.outcomes import Claimed
from agentqueue.model.wait_histogram import BOUNDS_MS, BUCKETS, TOTAL_MS
from agentqueue_worker.domain.wait_counts import Waits

NOW = 1_800_000_000_000


def claimed(
    score: float, *, level: Level = Level.NORMAL, attempts: int = 0, meta: dict[str, bytes] | None = None
) -> Claimed:
    return Claimed("j", level, score, b"{}", attempts, meta or {}, cancel=False)


def counted(job: Claimed) -> dict[str, int]:
    waits = Waits()
    waits.add([job], NOW)
    return waits.unsent()


def test_a_job_s_wait_begins_when_it_is_due() -> None:
    assert counted(claimed(NOW - 12_000.5)) == {"wait_le_20": 1, TOTAL_MS: 12_000}


def test_a_retry_s_wait_begins_when_it_is_due_again() -> None:
    assert counted(claimed(NOW - 700, attempts=2, meta={"errors": b"[]", "touched": b"1"})) == {
        "wait_le_1": 1,
        TOTAL_MS: 700,
    }


def test_a_clock_that_went_back_makes_no_negative_wait() -> None:
    assert counted(claimed(NOW + 5_000)) == {"wait_le_0.1": 1}


@pytest.mark.parametrize("meta", [{"crashes": b"1"}, {"releases": b"2"}])
def test_a_job_that_came_back_is_not_counted_since_its_place_does_not_show_when(meta: dict[str, bytes]) -> None:
    assert counted(claimed(NOW - 60_000, meta=meta)) == {}


def test_a_job_that_arq_s_abort_brought_to_the_head_is_not_counted() -> None:
    assert counted(claimed(1.0)) == {}


def test_priorities_are_counted_separately_here_and_added_up_for_redis() -> None:
    waits = Waits()
    waits.add([claimed(NOW - 200, level=Level.HIGH), claimed(NOW - 200, level=Level.LOW)], NOW)
    assert waits.of(Level.HIGH) == dict.fromkeys(BUCKETS, 0) | {"wait_le_0.5": 1, TOTAL_MS: 200}
    assert set(waits.of(Level.NORMAL).values()) == {0}
    assert waits.unsent() == {"wait_le_0.5": 2, TOTAL_MS: 400}


class Sending(RuleBasedStateMachine):
    """Jobs are claimed while renewals are on their way, and some of these fail."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Waits()
        self.model: Counter[str] = Counter()
        self.redis: Counter[str] = Counter()
        self.on_its_way: dict[str, int] | None = None

    @rule(wait_ms=st.floats(0, 1e7), level=st.sampled_from(Level))
    def claim(self, wait_ms: float, level: Level) -> None:
        self.waits.add([claimed(NOW - wait_ms, level=level)], NOW)
        self.model[BUCKETS[bisect_left(BOUNDS_MS, NOW - (NOW - wait_ms))]] += 1

    @rule()
    def send(self) -> None:
        if self.on_its_way is None:
            self.on_its_way = self.waits.unsent()

    @rule()
    def answered(self) -> None:
        if self.on_its_way is not None:
            self.redis.update(self.on_its_way)
            self.waits.sent(self.on_its_way)
            self.on_its_way = None

    @rule()
    def failed(self) -> None:
        self.on_its_way = None

    @invariant()
    def redis_and_what_is_unsent_are_all(self) -> None:
        known = self.redis + Counter(self.waits.unsent())
        assert {field: number for field, number in known.items() if field != TOTAL_MS} == self.model
        assert all(number > 0 for number in known.values())


TestSending = Sending.TestCase
