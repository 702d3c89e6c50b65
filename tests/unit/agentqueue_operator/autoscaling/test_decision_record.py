"""Tests of the JSON form of a decision, of its publication, and of the listener for first jobs."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue.errors import QueueUnavailable
from agentqueue.spec.defaults import RateLimit, ScalingMode
from agentqueue_operator.autoscaling.decision import decide_replicas
from agentqueue_operator.autoscaling.decision_record import Change, Owner, PublishedDecision, decode, encode, to_json
from agentqueue_operator.autoscaling.explanation import explain
from agentqueue_operator.autoscaling.model import (
    Decision,
    Load,
    Memory,
    Pods,
    ScaleTo,
    ScalingPolicy,
    ScalingReason,
    ScalingSnapshot,
)
from agentqueue_operator.queues.decision_publisher import EVERY_S, SHARED_S, Publisher
from agentqueue_operator.queues.first_job_listener import listen
from tests.support.scaling import FakeQueues


def decide(ready: int = 0, *, current: int = 0, load: Load | None = None, **policy: Any) -> Decision:
    """Return a decision on this number of ready jobs."""
    snapshot = ScalingSnapshot(at=5.0, load=load or Load(ready=ready), pods=Pods(ready=current))
    return decide_replicas(snapshot, current=current, policy=ScalingPolicy(**policy), memory=Memory())


@given(
    st.builds(Load, ready=st.integers(0, 500), active=st.integers(0, 50), paused=st.booleans()) | st.none(),
    st.integers(0, 20),
    st.sampled_from(ScalingMode),
    st.booleans(),
    st.none() | st.builds(RateLimit, max=st.integers(1, 9), duration_seconds=st.integers(1, 86_400)),
)
def test_a_decision_comes_back_as_it_was(
    load: Load | None, current: int, mode: ScalingMode, suspended: bool, limit: RateLimit | None
) -> None:
    snapshot = ScalingSnapshot(at=5.0, load=load, pods=Pods(ready=current))
    policy = ScalingPolicy(mode=mode, suspended=suspended, rate_limit=limit, scale_down_window=timedelta(seconds=9))
    decision = decide_replicas(snapshot, current=current, policy=policy, memory=Memory())
    given_ = PublishedDecision(
        by="up",
        at_ms=7,
        decision=replace(decision, memory=Memory()),
        change=Change(1, 2, 3, ScalingReason.MAX),
        owner=Owner("n/q", "u"),
    )
    assert decode(encode(given_)) == given_
    assert explain(decode(encode(given_)).decision) == explain(decision)


def test_json_has_camel_case_and_seconds() -> None:
    fields = to_json(PublishedDecision(by="up", at_ms=7, decision=decide(9, target_wait=timedelta(minutes=1))))
    assert (fields["replicas"], fields["reason"], fields["terms"]["policy"]["targetWait"]) == (2, "Backlog", 60.0)


@pytest.mark.parametrize(
    ("raw", "problems"), [(b"{}", r"\d problems"), (b"no json", "1 problem"), (b'{"version": 1}', r"\d problems")]
)
def test_what_another_version_wrote_is_refused(raw: bytes, problems: str) -> None:
    with pytest.raises(ValueError, match=rf"not a decision that this version can read \({problems}\)"):
        decode(raw)


async def test_news_are_published_at_once_and_the_same_again_after_a_while() -> None:
    queues, publisher = FakeQueues(), Publisher("up", now=lambda: 7)

    async def is_published(decision: Decision, at: float) -> bool:
        queues.published.clear()
        await publisher.publish(queues, {"work": decision}, at=at)
        return "work" in queues.published

    assert await is_published(decide(), 0.0)
    assert not await is_published(decide(), EVERY_S - 0.1)
    assert await is_published(decide(), EVERY_S)
    assert await is_published(decide(9), EVERY_S + 0.1)
    queues.down = True
    assert not await is_published(decide(), EVERY_S + 0.2)
    queues.down = False
    assert await is_published(decide(), EVERY_S + 0.3)
    unread = decide_replicas(ScalingSnapshot(at=9.0, load=None), current=0, policy=ScalingPolicy(), memory=Memory())
    assert not await is_published(unread, EVERY_S * 9)


async def test_a_change_is_what_was_seen_to_change_and_why_it_was_decided() -> None:
    queues, publisher = FakeQueues(), Publisher("operator", now=lambda: 7)
    up = decide(9)
    assert isinstance(up, ScaleTo)
    for at, decision in enumerate((up, decide(9, current=up.replicas), decide(current=5))):
        await publisher.publish(queues, {"work": decision}, at=float(at))
    assert decode(queues.published["work"]).change == Change(7, up.replicas, 5, ScalingReason.BACKLOG)


ONE, OTHER = Owner("shop/a", "1"), Owner("shop/b", "2")


async def publish_in_turn(queues: FakeQueues, *publishers: Publisher, at: float) -> None:
    """Let each publish once, one second after the other, as on a loaded machine."""
    for number, publisher in enumerate(publishers):
        await publisher.publish(queues, {"work": decide()}, at=at + number)


async def test_two_that_scale_one_queue_know_of_each_other() -> None:
    queues, one, other = FakeQueues(), Publisher("operator", owner=ONE), Publisher("operator", owner=OTHER)
    for at in (0.0, 10.0, 20.0):
        await publish_in_turn(queues, one, other, at=at)
    assert one.shares_with("work", at=20.0) == "the AgentQueue shop/b"
    assert other.shares_with("work", at=21.0) == "the AgentQueue shop/a"
    assert one.shares_with("another", at=20.0) == ""
    assert one.shares_with("work", at=20.0 + SHARED_S) == ""  # it was not seen again


@pytest.mark.parametrize(
    ("other", "who"),
    [
        pytest.param(Publisher("up"), "`agentqueue up`", id="up"),
        pytest.param(
            Publisher("operator", owner=Owner("shop/a", "9")),
            "the AgentQueue shop/a of another cluster",
            id="of-the-same-name",
        ),
    ],
)
async def test_the_other_publisher_is_named(other: Publisher, who: str) -> None:
    queues, one = FakeQueues(), Publisher("operator", owner=ONE)
    for at in (0.0, 10.0, 20.0):
        await publish_in_turn(queues, other, one, at=at)
    assert one.shares_with("work", at=21.0) == who


async def test_what_an_earlier_agent_queue_left_is_nobody_who_shares() -> None:
    """A recreated AgentQueue has another UID, and finds the last decision of the deleted one once."""
    queues, before, after = (
        FakeQueues(),
        Publisher("operator", owner=ONE),
        Publisher("operator", owner=Owner("shop/a", "3")),
    )
    await publish_in_turn(queues, before, at=0.0)
    for at in (10.0, 20.0, 30.0):
        await publish_in_turn(queues, after, at=at)
        assert after.shares_with("work", at=at) == ""


async def test_two_sightings_far_apart_are_of_two_that_are_gone() -> None:
    queues, one = FakeQueues(), Publisher("operator", owner=ONE)
    for at in (0.0, SHARED_S + 1):
        await publish_in_turn(queues, Publisher("operator", owner=OTHER), one, at=at)
    assert one.shares_with("work", at=SHARED_S + 2) == ""


async def test_a_new_leader_of_the_same_agent_queue_shares_with_nobody() -> None:
    queues = FakeQueues()
    for at in (0.0, 10.0, 20.0):
        leader = Publisher("operator", owner=ONE)
        await publish_in_turn(queues, leader, at=at)
        assert leader.shares_with("work", at=at) == ""


async def test_a_decision_of_another_version_says_nothing_about_who_shares() -> None:
    queues, one = FakeQueues(), Publisher("operator", owner=ONE)
    for at in (0.0, 10.0):
        queues.published["work"] = b"{}"
        await publish_in_turn(queues, one, at=at)
    assert one.shares_with("work", at=10.0) == ""


class Ears(FakeQueues):
    """Queues that record the names they are asked to wait for."""

    def __init__(self, *answers: bool | Exception) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[Sequence[str]] = []

    async def wait_for_jobs(self, queues: Sequence[str], timeout_s: float) -> bool:
        self.asked.append(queues)
        answer = self.answers.pop(0) if self.answers else False
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.looptime
async def test_a_first_job_wakes_the_loop_and_an_outage_ends_nothing() -> None:
    ears, woken, at_zero = Ears(False, QueueUnavailable("gone"), True), asyncio.Event(), [["a"], [], ["a", "b"]]
    task = asyncio.create_task(
        listen(lambda: ears, lambda: at_zero.pop(0) if len(at_zero) > 1 else at_zero[0], woken.set)
    )
    await asyncio.wait_for(woken.wait(), 30)
    task.cancel()
    assert ears.asked == [["a"], ["a", "b"], ["a", "b"]]
