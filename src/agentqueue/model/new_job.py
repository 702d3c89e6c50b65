"""Check a producer's options, and make the job record."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypedDict

from agentqueue.errors import InvalidName, UsageError
from agentqueue.keys import PRIORITY_NUMBERS, Level, check_id, check_job_name, check_queue, level_of
from agentqueue.model.job import NO_OPTIONS, JobOptions, JobRecord, encode_job
from agentqueue.model.json import MAX_BYTES
from agentqueue.model.retry_policy import (
    MAX_DURATION_S,
    MIN_TIMEOUT_S,
    Backoff,
    Seconds,
    backoff_to_record,
    check_attempts,
    seconds,
)


class _NoPayload:
    """The type of NO_PAYLOAD."""

    def __repr__(self) -> str:
        return "NO_PAYLOAD"


NO_PAYLOAD: Final = _NoPayload()
"""Stands for a payload that is left out. Unlike None, it selects the handler's default."""


MAX_TENANT_CHARACTERS: Final = 256
"""Maximum length of a tenant or a trace. Lists read them with every job."""
MAX_TAGS: Final = 20
"""Maximum number of tags. Lists read them with every job."""
MAX_TAG_CHARACTERS: Final = 128
"""Maximum length of a tag."""


MAX_CHILDREN_PER_CALL: Final = 200
"""Maximum number of children that one call sends for a job that waits for them. It blocks the server for under 5 ms."""
MAX_CHILD_BYTES_PER_CALL: Final = 3 * 1024 * 1024
"""Maximum size of these children, in bytes."""


class EnqueueOptions(TypedDict, total=False):
    """Keywords of `enqueue`. None is the same as leaving one out. Durations are in seconds, or timedeltas."""

    priority: int | str | Level | None
    """urgent (1), high (5), normal (10, the default) or low (15)."""
    delay: Seconds | None
    """Earliest start, from now. At most 10 years."""
    at: datetime | None
    """Earliest start, as a time with a time zone. A time in the past starts the job at once."""
    id: str | None
    """The job's ID. While the ID is known, a second job with it is not enqueued. By default the ID is random."""
    tags: Sequence[str] | None
    """Up to 20 labels of the job."""
    timeout: Seconds | None
    """Longest duration of one attempt. It overrides the handler's setting."""
    attempts: int | None
    """Maximum number of attempts. It overrides the handler's setting."""
    backoff: Backoff | Mapping[str, Any] | Seconds | None
    """`{type: exponential|fixed, delaySeconds, maxDelaySeconds, jitter}`, a Backoff, or one fixed delay."""
    tenant: str | None
    """Tenant of the job. Its children inherit it."""
    trace: str | None
    """W3C `traceparent`. The job's children inherit it."""
    force: bool | None
    """Clients only: send the job even if the code that serves the queue has no job of that name."""


OPTION_NAMES: Final = frozenset(EnqueueOptions.__annotations__)
"""Names of the options."""


@dataclass(slots=True)  # one per job: freezing makes it three times as slow to make
class NewJob:
    """A job to enqueue, with its encoded record."""

    queue: str
    id: str
    record: bytes
    level: Level = Level.NORMAL
    delay_ms: int = 0


class Prepared(NamedTuple):  # costs half of a frozen dataclass; each job of a bulk makes one
    """A job that is ready to be sent."""

    job: NewJob
    id_is_random: bool
    """True if the ID was drawn at random. The server then skips the check for a known ID."""
    name: str = ""
    """The job's name, if it must be checked against the registered names."""
    result: Any = None
    """What reads the job's result as the type that its handler returns. None: readers get JSON."""


def prepare_job(
    queue: str,
    name: str,
    data: Any,
    options: Mapping[str, Any],
    *,
    now_ms: int,
    new_id: str,
    draw_nonce: Callable[[], str],
    max_bytes: int = MAX_BYTES,
    parent: str | None = None,
    parent_queue: str | None = None,
    depth: int = 0,
    by_name: bool = False,
) -> Prepared:
    """Check a job and its options, and encode the job.

    Args:
        queue: The queue's name.
        name: The job's name.
        data: The payload, or NO_PAYLOAD.
        options: See `EnqueueOptions`.
        now_ms: The current time, in ms.
        new_id: The job's ID if the options have none.
        draw_nonce: Returns a random text for a job whose options have an ID.
        max_bytes: Maximum size of the encoded job.
        parent: The ID of the job that enqueues this one.
        parent_queue: The queue of that job, if it waits for this one.
        depth: The number of jobs that wait for this one in a row.
        by_name: The caller wrote the job's name, and may have mistyped it.

    Raises:
        InvalidName: The queue, job name, ID, priority, a tag or the tenant is outside its alphabet or range.
        InvalidPayload: `data` is not JSON, has NaN, is too deep, or the encoded job exceeds `max_bytes`.
        UsageError: Another option is out of range or does not exist.
    """
    _check_queue(queue)
    _check_name(name)
    args = () if data is NO_PAYLOAD else (data,)
    given = _given(options) if options else options
    unknown_yet = name if by_name and not given.get("force") else ""
    level, number = _priority(given.get("priority"))
    if len(given) <= ("priority" in given):  # no other option, as for most jobs
        record = JobRecord(
            name,
            args,
            enqueued_ms=now_ms,
            queue=queue,
            priority=number,
            parent=parent,
            parent_queue=parent_queue,
            depth=depth,
        )
        new = NewJob(queue, new_id, encode_job(record, max_bytes=max_bytes), level)
        return Prepared(new, id_is_random=True, name=unknown_yet)
    record = JobRecord(
        name=name,
        args=args,
        enqueued_ms=now_ms,
        queue=queue,
        priority=number,
        options=_job_options(given),
        tags=_tags(given.get("tags")),
        parent=parent,
        parent_queue=parent_queue,
        depth=depth,
        tenant=_short_text(given.get("tenant"), "tenant"),
        trace=_short_text(given.get("trace"), "trace"),
        nonce=draw_nonce() if "id" in given else None,
    )
    job_id = check_id(given["id"]) if "id" in given else new_id
    raw = encode_job(record, max_bytes=max_bytes)
    new = NewJob(queue, job_id, raw, level, _delay_ms(given, now_ms))
    return Prepared(new, id_is_random="id" not in given, name=unknown_yet)


def _check_queue(queue: str) -> None:
    if type(queue) is str:
        _check_queue_once(queue)
    else:
        check_queue(queue)


def _check_name(name: str) -> None:
    if type(name) is str:
        _check_name_once(name)
    else:
        check_job_name(name)


# A bulk repeats few queues and job names.
_check_queue_once = lru_cache(maxsize=1_024)(check_queue)
_check_name_once = lru_cache(maxsize=1_024)(check_job_name)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    if not given.keys() <= OPTION_NAMES:
        unknown = next(name for name in given if name not in OPTION_NAMES)
        near = difflib.get_close_matches(unknown, OPTION_NAMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it may be {', '.join(sorted(OPTION_NAMES))}"
        raise UsageError(f"enqueue has no option {unknown!r}; {hint}")
    return given


def _priority(value: Any) -> tuple[Level, int | None]:
    """Return the level, and the number for the record. The number of the level normal is None."""
    if value is None:
        return Level.NORMAL, None
    level = level_of(value)
    number = value if type(value) is int else PRIORITY_NUMBERS[level]
    return level, None if number == PRIORITY_NUMBERS[Level.NORMAL] else number


def _delay_ms(given: Mapping[str, Any], now_ms: int) -> int:
    if "at" in given:
        if "delay" in given:
            raise UsageError("a job takes `delay` or `at`, not both")
        return _until_ms(given["at"], now_ms)
    if "delay" not in given:
        return 0
    return round(seconds(given["delay"], "delay") * 1000)


def _until_ms(moment: Any, now_ms: int) -> int:
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise UsageError(f"`at` must be a datetime with a time zone, not {moment!r}; e.g. datetime.now(UTC) + …")
    delay_ms = math.ceil(moment.timestamp() * 1000) - now_ms
    if delay_ms > MAX_DURATION_S * 1000:
        raise UsageError(f"`at` is {moment.isoformat()}, over 10 years from now")
    return max(delay_ms, 0)


def _job_options(given: Mapping[str, Any]) -> JobOptions:
    timeout, attempts, backoff = given.get("timeout"), given.get("attempts"), given.get("backoff")
    if timeout is attempts is backoff is None:
        return NO_OPTIONS
    return JobOptions(
        timeout=None if timeout is None else seconds(timeout, "timeout", least=MIN_TIMEOUT_S),
        attempts=check_attempts(attempts),
        backoff=None if backoff is None else backoff_to_record(backoff),
    )


def _tags(value: Any) -> Sequence[str]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) > MAX_TAGS:
        raise InvalidName(f"`tags` must be a list of at most {MAX_TAGS} strings, not {value!r:.80}")
    for tag in value:
        if type(tag) is not str or not 0 < len(tag) <= MAX_TAG_CHARACTERS or not tag.isprintable():
            raise InvalidName(f"tag {tag!r:.80} must have 1 to {MAX_TAG_CHARACTERS} printable characters")
    return value


def _short_text(value: Any, what: str) -> str | None:
    if value is None or (type(value) is str and 0 < len(value) <= MAX_TENANT_CHARACTERS and value.isprintable()):
        return value
    raise InvalidName(f"`{what}` must have 1 to {MAX_TENANT_CHARACTERS} printable characters, not {value!r:.80}")
