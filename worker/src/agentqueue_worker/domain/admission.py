"""What to do with a job that was just claimed, before any of it runs."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from agentqueue.keys import JOB
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.job import is_pickle
from agentqueue.model.outcomes import Claimed

UNKNOWN_JOB_DELAY_MS: Final = 5_000
"""A job of an unknown name comes back after this: to a worker of the new version, if a rollout is under way."""
UNKNOWN_SINCE_FIELD: Final = "unknown_since"
EXPIRED_AFTER_MS: Final = 1_000
"""An id whose record is missing though it has been due for this long had one: it expired."""


@dataclass(frozen=True, slots=True)
class Start:
    """Nothing is in the way."""


@dataclass(frozen=True, slots=True)
class DropCancelled:
    """It was cancelled before it started."""


@dataclass(frozen=True, slots=True)
class Reject:
    """It can't run."""

    reason: DeadLetterReason
    message: str


@dataclass(frozen=True, slots=True)
class Defer:
    """Perhaps another worker can run it, later."""

    delay_ms: int
    since_ms: int
    """When it was put off first."""


Admission = Start | DropCancelled | Reject | Defer


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """What a worker's settings and its registry say."""

    crash_limit: int
    unknown_grace_ms: int
    cancellable: bool = True


def admit(
    claimed: Claimed, name: str, *, known: bool, names: Iterable[str], rules: AdmissionRules, now_ms: int
) -> Admission:
    """Decide on a job whose record could be read. `known`: there is a handler for its name."""
    if claimed.cancel and rules.cancellable:
        return DropCancelled()
    if 0 < claimed.count("expires") <= now_ms:
        return Reject(DeadLetterReason.EXPIRED, "its _expires passed before a worker came to it")
    crashes = claimed.count("crashes")
    if crashes >= rules.crash_limit:
        return Reject(DeadLetterReason.CRASHED, f"{crashes} workers died while they ran it")
    return Start() if known else _admit_unknown(claimed, name, names, rules, now_ms)


def _admit_unknown(
    claimed: Claimed, name: str, names: Iterable[str], rules: AdmissionRules, now_ms: int
) -> Defer | Reject:
    since = claimed.count(UNKNOWN_SINCE_FIELD) or now_ms
    if now_ms - since < rules.unknown_grace_ms:
        return Defer(min(UNKNOWN_JOB_DELAY_MS, rules.unknown_grace_ms), since)
    return Reject(DeadLetterReason.UNKNOWN_JOB, explain_unknown(name, names))


def explain_unknown(name: str, names: Iterable[str]) -> str:
    """What is wrong with the name, with the nearest that is right."""
    known = sorted(names)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(known[:10]) or 'none'}"
    return f"this agent has no job {name!r}; {hint}"


def reject_unreadable(claimed: Claimed, problem: str, *, now_ms: int) -> Reject:
    """Why a job whose record is missing or can't be read is buried."""
    if claimed.record is None and "foreign" in claimed.meta:
        kind = claimed.meta["foreign"].decode(errors="replace")
        return Reject(
            DeadLetterReason.GARBAGE, f"{JOB}{claimed.id} is a {kind}: something else wrote where its record was"
        )
    if claimed.record is None:
        return _reject_without_record(claimed, now_ms)
    if is_pickle(claimed.record):
        return Reject(
            DeadLetterReason.PICKLED,
            "its record is a pickle, which is not read unless asked for: enqueue with "
            "agentqueue.arq.dumps as arq's job_serializer, or run the worker with --arq-pickle, "
            "pickle=True or a job_deserializer in its WorkerSettings",
        )
    return Reject(DeadLetterReason.GARBAGE, problem)


def _reject_without_record(claimed: Claimed, now_ms: int) -> Reject:
    due = claimed.score
    if due > 1e12 and now_ms - due >= EXPIRED_AFTER_MS:
        return Reject(
            DeadLetterReason.EXPIRED, "its record is gone: it expired (arq's _expires) before a worker came to it"
        )
    return Reject(DeadLetterReason.NO_RECORD, "the queue had its id, but there is no record of it")
