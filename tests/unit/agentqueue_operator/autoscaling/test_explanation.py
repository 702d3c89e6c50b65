"""Tests of the explanations of decisions."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentqueue.spec.defaults import Fallback, FallbackBehavior, RateLimit, ScalingMode
from agentqueue_operator.autoscaling.decision import decide_replicas
from agentqueue_operator.autoscaling.explanation import (
    _BECAUSE,
    JobFacts,
    JobState,
    Workers,
    explain,
    explain_job,
    explain_without_decision,
)
from agentqueue_operator.autoscaling.model import (
    Decision,
    Load,
    Memory,
    Pods,
    Rates,
    ScalingPolicy,
    ScalingReason,
    ScalingSnapshot,
)
from tests.support.pages import Page

RATES = Rates(arrivals_per_s=0.4, busy=8, service=timedelta(seconds=20), startup=timedelta(seconds=3.2))
SETTLED = Memory(since=0.0, busy_at=970.0)


def decide(
    load: Load | None,
    *,
    current: int = 2,
    pods: Pods | None = None,
    memory: Memory = SETTLED,
    rates: Rates = RATES,
    **given: Any,
) -> Decision:
    snapshot = ScalingSnapshot(at=1000.0, load=load, pods=pods or Pods(ready=current), rates=rates)
    return decide_replicas(snapshot, current=current, policy=ScalingPolicy(**given), memory=memory)


BACKLOG = Load(ready=38, due_soon=2, active=10, oldest_ready=timedelta(seconds=12))


def test_every_reason_has_its_words() -> None:
    assert set(_BECAUSE) == set(ScalingReason)


@pytest.mark.parametrize(
    ("decision", "headline"),
    [
        pytest.param(decide(BACKLOG), "From 2 pods to 10: 40 jobs ready or due soon need slots.", id="up"),
        pytest.param(
            decide(Load(active=1), current=9, rates=Rates()),
            "From 9 pods to 1: the expected jobs need no more.",
            id="down",
        ),
        pytest.param(
            decide(Load(), current=1, rates=Rates(), memory=Memory(since=0.0, busy_at=900.0)),
            "From 1 pod to 0: there has been no job for 100 s.",
            id="to-zero",
        ),
        pytest.param(
            decide(Load(), current=1, rates=Rates()),
            "1 pod, as before: fewer are enough, but the last ones are removed after another 50 s without a job.",
            id="the-last-one-waits",
        ),
        pytest.param(
            decide(
                Load(active=1),
                rates=Rates(),
                current=5,
                scale_down_window=timedelta(seconds=60),
                memory=decide(Load(active=25), current=5, scale_down_window=timedelta(seconds=60)).memory,
            ),
            "5 pods, as before: fewer are enough, but 5 were wanted within the last 60 s.",
            id="cooling-down",
        ),
        pytest.param(decide(Load(), current=0, rates=Rates()), "No pods, as before: there is no job.", id="nothing"),
        pytest.param(
            decide(None, fallback=Fallback(behavior=FallbackBehavior.STATIC, replicas=3), memory=Memory(failures=3)),
            "From 2 pods to 3: the queue could not be read 4 times in a row, and the fallback is Static with 3.",
            id="fallback",
        ),
        pytest.param(
            decide(BACKLOG, mode=ScalingMode.EXTERNAL),
            "2 pods, as before: scaling.mode is External, so the operator does not set the number.",
            id="external",
        ),
    ],
)
def test_headlines(decision: Decision, headline: str) -> None:
    assert explain(decision).headline == headline


def test_details_give_each_input_and_each_term() -> None:
    assert explain(decide(BACKLOG, current=3, pods=Pods(ready=2, starting=1))).details == (
        "38 jobs ready (the oldest for 12 s), 2 due within a pod's start, 10 running.",
        "0.4 jobs a second arrive and take 20 s each; 8.0 slots were busy in the last minute.",
        "2 pods ready, 1 starting; each has 5 slots and starts in 3.2 s.",
        "In the long run, 8.0 jobs run at the same time.",
        "49.7 jobs are expected to be present when a pod requested now is ready.",
        "To clear the backlog in 30 s, 34.7 must run at the same time.",
        (
            "Slots for 34.7 jobs are wanted, with a standard deviation of 1.1: below 7 pods some are started, "
            "above 8 pods some may be removed."
        ),
        "The running jobs need 2 pods.",
        "At least 0, at most 10 pods are allowed.",
    )


def test_details_name_what_only_some_queues_have() -> None:
    limits: dict[str, Any] = {
        "min_idle_slots": 12,
        "rate_limit": RateLimit(max=1, duration_seconds=1),
        "scale_down_window": timedelta(minutes=5),
    }
    details = " ".join(explain(decide(Load(paused=True), pods=Pods(unschedulable=2), **limits)).details)
    assert "The queue is paused." in details
    assert "2 without a node" in details
    assert "There is no backlog." in details
    assert "with minIdleSlots 3." in details
    assert "The rate limit can supply 5 pods with jobs." in details
    assert "The maximum to keep in the last 5 min was 3." in details


def test_a_guess_is_called_one() -> None:
    limit = RateLimit(max=2, duration_seconds=1)
    explained = explain(decide(Load(ready=100), current=0, rates=Rates(service_known=timedelta()), rate_limit=limit))
    assert explained.headline == (
        "From no pods to 1: the rate limit can supply no more with jobs, as far as is known before a job has ended."
    )
    assert (
        "0 jobs a second arrive and take an estimated 30 s each; 0.0 slots were busy in the last minute."
        in explained.details
    )
    assert "The rate limit can supply 1 pod with jobs, as far as is known before a job has ended." in explained.details


def test_without_metrics_there_is_one_detail() -> None:
    assert explain(decide(None)).details == ("The queue could not be read.",)


WAITS = JobFacts(id="trip-17", state=JobState.WAITING, ahead=37, age=timedelta(seconds=11))
NEXT = JobFacts(id="trip-17", state=JobState.WAITING)
NONE = Workers()
BUSY = Workers(claiming=2, slots=10, busy=10)
FREE = Workers(claiming=2, slots=10, busy=9)
GOING = Workers(draining=2)


@pytest.mark.parametrize(
    ("job", "decision", "workers", "words"),
    [
        pytest.param(
            WAITS, decide(BACKLOG), BUSY, "10 of 10 slots are busy; it starts within about 76 s", id="its-turn"
        ),
        pytest.param(NEXT, decide(Load(ready=1)), FREE, "a slot is free; it starts with the next claim.", id="next"),
        pytest.param(WAITS, decide(BACKLOG, suspended=True), BUSY, "suspended", id="suspended"),
        pytest.param(WAITS, decide(Load(ready=38, paused=True)), FREE, "paused", id="paused"),
        pytest.param(WAITS, decide(None), NONE, "could not be read", id="unreadable"),
        pytest.param(
            WAITS,
            decide(BACKLOG, pods=Pods(starting=2)),
            NONE,
            "2 pods starting; a start takes about 3.2 s",
            id="starting",
        ),
        pytest.param(WAITS, decide(BACKLOG, pods=Pods(unschedulable=2)), NONE, "finds no node", id="unschedulable"),
        pytest.param(WAITS, decide(BACKLOG, pods=Pods(failing=2)), NONE, "2 pods cannot start", id="failing"),
        pytest.param(NEXT, decide(Load(ready=1), current=0), NONE, "its pod has just been requested", id="asked-for"),
        pytest.param(
            NEXT, decide(Load(ready=1), current=0, mode=ScalingMode.EXTERNAL), NONE, "none was requested", id="external"
        ),
        pytest.param(
            WAITS,
            decide(BACKLOG, rate_limit=RateLimit(max=1, duration_seconds=10)),
            BUSY,
            "the rate limit allows 1 start in 10 s; it starts within about 6 min",
            id="rate-limited",
        ),
        pytest.param(
            NEXT,
            decide(Load(ready=1), mode=ScalingMode.EXTERNAL),
            GOING,
            "all its workers (2) are draining: they finish their jobs and claim no more",
            id="all-are-going",
        ),
        pytest.param(
            NEXT,
            decide(Load(ready=1), pods=Pods(ready=1, starting=1), mode=ScalingMode.EXTERNAL),
            GOING,
            "1 pod starting",
            id="all-are-going-and-one-comes",
        ),
        pytest.param(
            JobFacts(id="trip-17", state=JobState.WAITING, ahead=4),
            decide(Load(ready=5, active=4), current=4, mode=ScalingMode.FIXED, replicas=1, concurrency=1),
            Workers(claiming=1, slots=1, busy=1, draining=3),
            "1 of 1 slots are busy; it starts within about 100 s; not counted: 3 draining workers",
            id="most-are-going",
        ),
        pytest.param(
            NEXT,
            decide(Load(ready=1), mode=ScalingMode.EXTERNAL),
            NONE,
            "2 pods ready, but no heartbeat has arrived from there in the last seconds",
            id="ready-and-not-heard-of",
        ),
    ],
)
def test_why_a_job_waits(job: JobFacts, decision: Decision, workers: Workers, words: str) -> None:
    explained = explain_job(job, decision, workers)
    assert words in explained.headline
    assert explained.details[0] == explain(decision).headline


def test_docs_scaling_md_shows_these_words() -> None:
    page = Page(Path(__file__).parents[4] / "docs" / "scaling.md")
    (shown,) = [text.splitlines() for _, text in page.blocks if text.startswith("$ agentqueue explain")]
    explained = explain_job(WAITS, decide(BACKLOG), BUSY)
    first, *details = explained.details
    assert shown[1:3] == [explained.headline, f"flight-search: {first}"]
    assert shown[3:6] == [f"  {detail}" for detail in details[:3]]


def test_words_for_a_machine_without_pods() -> None:
    explained = explain(decide(Load(), current=1, rates=Rates(), max_pods_per_minute=3)).for_processes()
    assert (
        explained.headline
        == "1 worker, as before: fewer are enough, but the last ones are removed after another 50 s without a job."
    )
    assert "pod" not in " ".join(explained.details)
    limited = explain(decide(BACKLOG, max_pods_per_minute=1)).for_processes()
    assert limited.headline == "From 2 workers to 3: maxPodsPerMinute is 1."


@pytest.mark.parametrize(
    ("workers", "present"),
    [
        pytest.param(Workers(claiming=1, slots=3, busy=1), "1 worker with 3 slots, 2 of them free.", id="some-free"),
        pytest.param(
            Workers(claiming=1, slots=3, busy=1, draining=2),
            "1 worker with 3 slots, 2 of them free; not counted: 2 draining workers.",
            id="some-going",
        ),
        pytest.param(
            Workers(draining=2),
            "All its workers (2) are draining: they finish their jobs and claim no more.",
            id="all-going",
        ),
        pytest.param(NONE, "0 workers with 0 slots, 0 of them free.", id="none"),
    ],
)
def test_a_queue_that_nothing_scales(workers: Workers, present: str) -> None:
    explained = explain_without_decision(Load(ready=2, active=1), workers)
    assert explained.headline.startswith("No autoscaling decision found")
    assert explained.details == (
        "2 jobs ready (the oldest for 0 s), 0 due within a pod's start, 1 running.",
        present,
    )


def test_nothing_is_wanted_in_words() -> None:
    details = " ".join(explain(decide(Load(), rates=Rates())).details)
    assert "none is started, all may be removed" in details
    failing = explain(decide(Load(ready=1), pods=Pods(unschedulable=1, failing=2))).details
    assert "No pods ready, 0 starting, 1 without a node, 2 failing to start; each" in " ".join(failing)


def test_jobs_that_do_not_wait() -> None:
    active = JobFacts(id="a", state=JobState.ACTIVE, age=timedelta(hours=3))
    delayed = JobFacts(id="b", state=JobState.DELAYED, due_in=timedelta(minutes=9))
    decision = decide(Load())
    assert explain_job(active, decision, NONE).headline == "Job a has run for 3.0 h."
    assert explain_job(delayed, decision, NONE).headline == "Job b is delayed: it becomes ready in 9 min."


@pytest.mark.parametrize(
    ("due_in", "latest"),
    [(None, "no timeout"), (timedelta(hours=5), "it goes on in 5.0 h at the latest")],
)
def test_a_suspended_job_says_what_it_waits_for_and_until_when(due_in: timedelta | None, latest: str) -> None:
    job = JobFacts(
        id="s", state=JobState.SUSPENDED, age=timedelta(hours=3), due_in=due_in, waits_for="the signal approval"
    )
    assert explain_job(job, decide(Load()), NONE).headline == (
        f"Job s has waited for the signal approval for 3.0 h, without a slot; {latest}."
    )


def test_what_is_left_of_lost_workers_is_said() -> None:
    explained = explain(decide(Load(ready=1, stalled=2), pods=Pods(ready=1, silent=1))).details
    assert explained[0].endswith("0 running, 2 started by lost workers and soon ready again.")
    assert "1 pod ready, 0 starting, 1 without heartbeats;" in explained[2]
    without_a_node = explain(decide(Load(ready=1), pods=Pods(silent=1, unschedulable=1, failing=1))).details[2]
    assert "1 without a node, 1 without heartbeats, 1 failing to start;" in without_a_node


def test_a_job_whose_worker_is_gone_does_not_run() -> None:
    job = JobFacts(id="j", state=JobState.ACTIVE, age=timedelta(minutes=3), lease_expired_for=timedelta(seconds=2))
    assert explain_job(job, decide(Load(stalled=1)), Workers()).headline == (
        "Job j was started 3 min ago, and its worker is lost: its lease expired 2 s ago. "
        "A worker, the operator or `agentqueue up` returns it to its queue within 10 s."
    )
