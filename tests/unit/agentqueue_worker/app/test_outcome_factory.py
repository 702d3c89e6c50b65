"""Outcomes of jobs, as they are recorded: counts, exceptions and worker names of their results."""

import asyncio
from dataclasses import replace
from unittest.mock import Mock

from agentqueue.keys import Level
from agentqueue.model.attempts import AttemptError, encode_errors
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.job import JobRecord, State
from agentqueue.model.outcomes import Claimed
from agentqueue.model.result import ResultRecord
from agentqueue_worker.app.job import Handler, RunningJob
from agentqueue_worker.app.options import Identity, WorkerOptions
from agentqueue_worker.app.outcome_factory import OutcomeFactory
from agentqueue_worker.app.ports import Codec
from agentqueue_worker.domain.claimed_job import ClaimedJob

NOW = 1_800_000_000_000
RECORD = JobRecord("search", ({"to": "XYZ"},), enqueued_ms=5)
CLAIMED = Claimed("j", Level.NORMAL, 1.0, b"{}", 0, {}, cancel=False)
RETRIED = replace(CLAIMED, attempts=1, meta={"errors": encode_errors([AttemptError(1, NOW - 5, "OSError", "x")])})
CAUSE = AttemptError(2, NOW, "ValueError", "no airport 'XYZ'")


class Written:
    """A factory whose codec keeps the result."""

    def __init__(self) -> None:
        self.codec = Mock(spec=Codec)
        self.codec.encode_result.return_value = b"{}"
        self.make = OutcomeFactory(WorkerOptions("q", Identity("w", "1"), keep_ms=7_000), self.codec)

    @property
    def result(self) -> ResultRecord:
        """The result that was encoded."""
        (written,) = self.codec.encode_result.call_args.args
        assert isinstance(written, ResultRecord)
        return written


def running(claimed: Claimed) -> RunningJob:
    handler = Mock(spec=Handler, keep_ms=1_000)
    return RunningJob(claimed, RECORD, handler, started=0.0, started_ms=7)


def test_the_result_of_a_dead_job_carries_its_exception_and_all_errors() -> None:
    written, boom = Written(), ValueError("boom")
    outcome = written.make.dead_lettered(running(RETRIED), CAUSE, DeadLetterReason.FAILED, boom)
    result = written.result
    assert (result.result, result.state, result.success, result.job_try) == (boom, State.DEAD, False, 2)
    assert (result.attempts, result.deliveries, result.worker, result.finished_ms) == (2, 2, "w", NOW)
    assert [error.type for error in result.errors] == ["OSError", "ValueError"]
    assert outcome.keep_ms == 1_000


def test_the_result_of_a_rejected_job_carries_its_error_and_counts_no_start() -> None:
    written = Written()
    outcome = written.make.rejected(ClaimedJob(CLAIMED, RECORD, None), DeadLetterReason.UNKNOWN_JOB, "no job 'search'")
    result = written.result
    assert (str(result.result), result.job_try) == ("UnknownJob: no job 'search'", 1)
    assert (result.attempts, result.deliveries, result.started_ms, result.worker) == (0, 0, 0, "w")
    assert outcome.keep_ms == 7_000


def test_a_job_that_is_cancelled_before_it_starts_names_no_worker() -> None:
    written = Written()
    written.make.cancelled(ClaimedJob(RETRIED, RECORD, None))
    result = written.result
    assert isinstance(result.result, asyncio.CancelledError)
    assert (result.job_try, result.attempts, result.deliveries, result.worker) == (1, 1, 1, None)


def test_a_job_that_is_cancelled_while_it_runs_counts_the_start_and_no_attempt() -> None:
    written = Written()
    written.make.cancelled(running(RETRIED))
    result = written.result
    assert (result.job_try, result.attempts, result.deliveries, result.worker) == (2, 1, 2, "w")
