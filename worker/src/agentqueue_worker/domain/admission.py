"""Decides what happens to a job that was just claimed, before any of it runs."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from agentqueue.keys import JOB
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.job import is_pickle
from agentqueue.model.outcomes import Claimed
from agentqueue_worker.domain.claimed_job import EARLIEST_TIME_MS, ClaimedJob
from agentqueue_worker.domain.retry import TOTAL_FACTOR

UNKNOWN_JOB_DELAY_MS: Final = 5_000
"""Delay of a deferred job, in ms. During a rollout it gives a worker of the new version the time to claim the job."""
UNKNOWN_SINCE_FIELD: Final = "unknown_since"
"""Field of a job's metadata that holds when the job was deferred first, in ms since the epoch."""
EXPIRED_AFTER_MS: Final = 1_000
"""Milliseconds after its due time at which a missing record counts as expired instead of never written.

A record is written together with its ID, so one that is missing much later has been there.
"""


@dataclass(frozen=True, slots=True)
class Start:
    """The job starts."""


@dataclass(frozen=True, slots=True)
class DropCancelled:
    """The job was cancelled before it started."""


@dataclass(frozen=True, slots=True)
class Reject:
    """The job can't run, and becomes a dead letter."""

    reason: DeadLetterReason
    message: str


@dataclass(frozen=True, slots=True)
class Defer:
    """The job is released, since another worker may be able to run it later."""

    delay_ms: int
    since_ms: int
    """When the job was deferred first, in ms since the epoch."""


Admission = Start | DropCancelled | Reject | Defer
START: Final = Start()
"""Decision for nearly every job. One object is enough, since it has no fields."""


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """Facts about the worker that decide which jobs it starts."""

    crash_limit: int
    """Number of workers that may crash while they run a job and it makes no progress. Then the job is rejected."""
    unknown_grace_ms: int
    """Milliseconds for which a job of an unknown name is deferred before it is rejected."""
    cancellable: bool = True
    """Cancellation requests are followed."""
    names: Iterable[str] = ()
    """Names of the jobs that the worker can run. Error messages list them."""


def admit(job: ClaimedJob[object], rules: AdmissionRules, now_ms: int) -> Admission:
    """Decide what happens to a claimed job whose record could be read.

    Args:
        job: the job. Its handler is None if the worker has none for its name.
        rules: facts about the worker.
        now_ms: the current time, in ms since the epoch.
    """
    claimed = job.claimed
    if claimed.cancel and rules.cancellable and not _can_undo(job, rules):
        return DropCancelled()
    if 0 < claimed.count("expires") <= now_ms:
        return Reject(DeadLetterReason.EXPIRED, "its _expires passed before a worker came to it")
    crashes, past_crashes = claimed.count("crashes"), claimed.count("past_crashes")
    if crashes - past_crashes >= rules.crash_limit or crashes >= rules.crash_limit * TOTAL_FACTOR:
        without = f", the last {crashes - past_crashes} without any progress of the job" if past_crashes else ""
        return Reject(DeadLetterReason.CRASHED, f"{crashes} workers died while they ran it{without}")
    if job.handler is not None:
        return START
    since_ms = claimed.count(UNKNOWN_SINCE_FIELD) or now_ms
    if now_ms - since_ms < rules.unknown_grace_ms:
        return Defer(min(UNKNOWN_JOB_DELAY_MS, rules.unknown_grace_ms), since_ms)
    return Reject(DeadLetterReason.UNKNOWN_JOB, explain_unknown(job.record.name, rules.names))


def _can_undo(job: ClaimedJob[object], rules: AdmissionRules) -> bool:
    """Return whether a job that somebody asked to cancel is started once more, to undo what its steps have done."""
    claimed = job.claimed
    crashes = claimed.count("crashes") - claimed.count("past_crashes")
    has_run = "journal" in claimed.meta and claimed.delivery > 1
    return has_run and job.handler is not None and crashes < rules.crash_limit


def explain_unknown(name: str, names: Iterable[str]) -> str:
    """Return an error message for an unknown job name, with the most similar known name."""
    known = sorted(names)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(known[:10]) or 'none'}"
    return f"this agent has no job {name!r}; {hint}"


def reject_unreadable(claimed: Claimed, problem: str, *, now_ms: int) -> Reject:
    """Return why a job is rejected whose record is missing or can't be read.

    Args:
        claimed: the job.
        problem: the decoder's error message.
        now_ms: the current time, in ms since the epoch.
    """
    if claimed.record is not None:
        if not is_pickle(claimed.record):
            return Reject(DeadLetterReason.GARBAGE, problem)
        return Reject(
            DeadLetterReason.PICKLED,
            "its record is a pickle, which is not read unless asked for: enqueue with "
            "agentqueue.arq.dumps as arq's job_serializer, or run the worker with --arq-pickle, "
            "pickle=True or a job_deserializer in its WorkerSettings",
        )
    if "wrong_type" in claimed.meta:
        kind = claimed.meta["wrong_type"].decode(errors="replace")
        message = f"{JOB}{claimed.id} is a {kind}: something else wrote where its record was"
        return Reject(DeadLetterReason.GARBAGE, message)
    if claimed.score > EARLIEST_TIME_MS and now_ms - claimed.score >= EXPIRED_AFTER_MS:
        message = "its record is gone: it expired (arq's _expires) before a worker came to it"
        return Reject(DeadLetterReason.EXPIRED, message)
    return Reject(DeadLetterReason.NO_RECORD, "the queue had its id, but there is no record of it")
