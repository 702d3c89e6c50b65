"""Entries of a job's journal, as JSON: what each of its durable calls has come to.

A field has a namespace, the call's name and how often the run has used the name, such as `step:plan#1`. A script adds
the state and the time to the body of an entry. The value comes last, so that the rest can be read without it.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from agentqueue.errors import InvalidPayload
from agentqueue.model.times import iso_of

MAX_VALUE_BYTES: Final = 1024 * 1024
"""Maximum size of the value of one call, in bytes."""
MAX_JOURNAL_BYTES: Final = 16 * 1024 * 1024
"""Maximum size of a journal, in bytes. Each delivery reads it, and one command returns it."""
MAX_ENTRIES: Final = 10_000
"""Maximum number of entries of a journal. Deleting as many takes Redis a few milliseconds."""
MAX_STEPS_SHOWN: Final = 200
"""Number of steps that stay with a job's result and that its status shows: the last ones."""
RUNNING_STEPS: Final = "running"
"""Field of a job's meta hash with the steps that run. The worker writes it when a step has run for a moment."""
STEP_PREFIX: Final = "step:"
"""Namespace of the fields of steps."""
MAX_READABLE_KEY: Final = 100
"""Length of the readable part of an idempotency key, in characters. With its digest the key is far below the limits of
providers, of which 255 is a common one."""
_VALUE: Final = b',"v":'
_NOT_IN_KEYS: Final = re.compile(r"[^A-Za-z0-9_.-]")


def step_field(label: str) -> str:
    """Return the journal's field of a step, by the step's name and number (`pay#2`). Without a number it is the first.

    >>> step_field("pay"), step_field("pay/ana#2")
    ('step:pay#1', 'step:pay/ana#2')
    """
    number = label.rpartition("#")[2]
    return f"{STEP_PREFIX}{label}" if "#" in label and number.isdecimal() else f"{STEP_PREFIX}{label}#1"


def idempotency_key(job_id: str, label: str) -> str:
    """Return the idempotency key of a step, by the step's name and number (`pay#2`).

    It is the same in every run of the job, and another one for every other step and job. It has at most 121 characters,
    letters, digits and `-_.` only, so that it fits into an HTTP header and into the path of a URL. People read the job
    and the step in it; the digest at its end distinguishes those that would look the same.

    >>> idempotency_key("order-7", "pay#1")
    'order-7.pay-1.e3ed0ae5581a0a95d3e5'
    """
    digest = hashlib.blake2b(f"{job_id}\0{label}".encode(errors="surrogatepass"), digest_size=10).hexdigest()
    return f"{_NOT_IN_KEYS.sub('-', f'{job_id}.{label}')[:MAX_READABLE_KEY]}.{digest}"


def events_field(field: str) -> str:
    """Return the journal's field for what a step has emitted to the job's stream, by the field of the step.

    >>> events_field("step:plan#1")
    'events:plan#1'
    """
    return f"events:{field.removeprefix(STEP_PREFIX)}"


class EntryState(StrEnum):
    """State of an entry. One that is done or raised has ended, and is never overwritten."""

    DONE = "done"
    """The call has returned a value."""
    RAISED = "raised"
    """The call has raised an error that is its final outcome."""
    FAILED = "failed"
    """The call has failed, and runs again."""
    INTENT = "intent"
    """The call is about to start. If nothing follows, its outcome is not known."""


STEP_ENDED: Final = (EntryState.DONE, EntryState.RAISED)
"""Outcomes of steps that do not run again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A decoded entry of a journal."""

    state: EntryState
    at_ms: int
    """When the entry was written, in ms since the epoch, by the server's clock."""
    ms: int = 0
    """Duration of the call."""
    delivery: int = 0
    fingerprint: str | None = None
    """Fingerprint of the call's arguments. None if they have none."""
    error: Any = None
    """JSON of the error of a call that failed."""
    value: bytes = b"null"
    """The value as JSON text."""

    @property
    def has_ended(self) -> bool:
        """Return whether the entry is final."""
        return self.state in STEP_ENDED


def encode_body(
    *, delivery: int, ms: int = 0, fingerprint: str | None = None, error: Any = None, value: bytes | None = None
) -> bytes:
    """Return the body of an entry, to which record_step.lua adds the state and the time. `value` is JSON text."""
    head: dict[str, Any] = {"ms": ms, "delivery": delivery}
    if fingerprint is not None:
        head["fp"] = fingerprint
    if error is not None:
        head["e"] = error
    raw = orjson.dumps(head)
    return raw if value is None else raw[:-1] + _VALUE + value + b"}"


def decode_entry(raw: bytes) -> Entry:
    """Return an entry of a journal.

    Raises:
        InvalidPayload: The text is not an entry.
    """
    head, separator, value = raw.partition(_VALUE)
    try:
        wire = orjson.loads(head + b"}" if separator else raw)
        return Entry(
            EntryState(wire["is"]),
            int(wire["at"]),
            int(wire.get("ms", 0)),
            int(wire.get("delivery", 0)),
            wire.get("fp"),
            wire.get("e"),
            value[:-1] if separator else b"null",
        )
    except (TypeError, ValueError, KeyError, AttributeError) as exc:  # a JSONDecodeError is a ValueError
        raise InvalidPayload(f"it is no entry of a journal: {exc} ({raw[:40]!r}…)") from exc


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step of a job, without its value."""

    name: str
    """Name and number of the step, such as `plan#1`."""
    outcome: str
    """`done`, `raised` (a step with `once=True`), `failed` (it runs again), or `intent` (its outcome is not known)."""
    at_ms: int
    """When the outcome was recorded, in ms since the epoch."""
    ms: int
    """Duration of the call, in ms."""
    delivery: int
    """Number of the start of the job in which it was called. 0: a person has resolved it."""
    error: str | None = None


def steps_of(entries: Mapping[str, bytes]) -> list[StepRecord]:
    """Return the last MAX_STEPS_SHOWN steps of a journal, in the order in which they ended.

    Args:
        entries: Entries by field. They may end before their values.
    """
    steps = []
    for field, raw in entries.items():
        if field.startswith(STEP_PREFIX):
            try:
                entry = decode_entry(raw)
            except InvalidPayload:
                continue  # another program has written it, which the job itself reports
            error = entry.error if isinstance(entry.error, dict) else {}
            line = ": ".join(filter(None, (error.get("type"), error.get("message"))))
            name = field.removeprefix(STEP_PREFIX)
            steps.append(StepRecord(name, str(entry.state), entry.at_ms, entry.ms, entry.delivery, line or None))
    return sorted(steps, key=lambda step: step.at_ms)[-MAX_STEPS_SHOWN:]


@dataclass(frozen=True, slots=True)
class RunningStep:
    """A step whose function runs now, as the worker has noted it after a moment."""

    name: str
    """Name and number of the step, such as `plan#1`."""
    since_ms: int
    """When the call began, in ms since the epoch, by the worker's clock."""
    attempt: int
    """Number of the call, from 1. A step with `attempts=` is tried again in place."""


def encode_running(delivery: int, steps: Iterable[RunningStep]) -> bytes:
    """Return the field `running` of a job's meta hash: the steps that run in a delivery."""
    return orjson.dumps([delivery, [[step.name, step.since_ms, step.attempt] for step in steps]])


def decode_running(raw: bytes | None, delivery: int, ended: Collection[str]) -> list[RunningStep]:
    """Return the steps that run now. The field stays when a step ends, so what is outdated is left out.

    Args:
        raw: the field.
        delivery: number of the present delivery; the steps of another one do not run.
        ended: names of the steps that the journal has an outcome of.
    """
    try:
        noted, steps = orjson.loads(raw or b"[0, []]")
        running = [RunningStep(str(name), int(since_ms), int(attempt)) for name, since_ms, attempt in steps]
    except (TypeError, ValueError):  # another program has written it; a JSONDecodeError is a ValueError
        return []
    return [step for step in running if noted == delivery and step.name not in ended]


def encode_steps(steps: Sequence[StepRecord]) -> list[list[Any]]:
    """Return steps as the result of a job holds them."""
    return [[step.name, step.outcome, step.at_ms, step.ms, step.delivery, step.error] for step in steps]


def decode_steps(wire: Any) -> tuple[StepRecord, ...]:
    """Return the steps in the result of a job.

    Raises:
        TypeError, ValueError: They cannot be read.
    """
    return tuple(StepRecord(*fields) for fields in wire)


def step_to_json(step: StepRecord) -> dict[str, Any]:
    """Return a step as JSON types, with an ISO 8601 time."""
    wire = {"name": step.name, "outcome": step.outcome, "at": iso_of(step.at_ms), "ms": step.ms}
    return wire | {"delivery": step.delivery, "error": step.error}
