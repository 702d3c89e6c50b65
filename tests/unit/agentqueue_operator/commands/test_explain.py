"""What `agentqueue explain` says of a job's steps."""

from typing import Any

from agentqueue.client import JobStatus
from agentqueue.model.job import State
from agentqueue.model.journal import RunningStep, StepRecord
from agentqueue_operator.commands.explain import step_notes

NOW_MS = 1_700_000_000_000


def status(**fields: Any) -> JobStatus:
    values = {
        "id": "j",
        "queue": "q",
        "name": "job",
        "state": State.ACTIVE,
        "priority": "normal",
        "data": None,
        "progress": None,
        "attempts": 0,
        "deliveries": 1,
    }
    values |= dict.fromkeys(("enqueued_at", "due_at", "started_at", "finished_at", "result", "error", "worker"), None)
    return JobStatus(**(values | fields))


def test_a_job_without_steps_has_no_notes() -> None:
    assert step_notes(status(), NOW_MS) == ()


def test_steps_that_are_done_that_run_and_that_wait_to_run_again() -> None:
    steps = (
        StepRecord("plan#1", "done", NOW_MS - 60_000, 5, 1),
        StepRecord("pay#1", "raised", NOW_MS - 30_000, 5, 1, "ValueError: declined"),
        StepRecord("mail#1", "failed", NOW_MS - 20_000, 5, 1, "OSError: no route"),
        StepRecord("sms#1", "failed", NOW_MS - 10_000, 5, 1, "OSError: no route"),
        StepRecord("book#1", "intent", NOW_MS - 4_000, 0, 1),
    )
    running = (RunningStep("sms#1", NOW_MS - 3_000, 2),)
    assert step_notes(status(steps=steps, running_steps=running), NOW_MS) == (
        "It has done 2 steps; the last, pay#1, 30s ago.",
        "Step sms#1 has run for 3s, in attempt 2 of the step.",
        "Step mail#1 failed 20s ago, and runs again: OSError: no route.",
        "Step book#1 began 4s ago, and its outcome is not known yet.",
    )


def test_why_a_job_has_snoozed() -> None:
    snoozed = status(state=State.DELAYED, snoozes=1, snooze="the model answers 429")
    assert step_notes(snoozed, NOW_MS) == ("It has snoozed once, the last time because: the model answers 429.",)
    assert step_notes(status(snoozes=3, snooze="429"), NOW_MS) == (
        "It has snoozed 3 times, the last time because: 429.",
    )
