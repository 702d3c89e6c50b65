"""A producer's options, checked, and the job record made from them."""

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
"""No payload was given, as opposed to None: the handler's default is taken."""


MAX_WORD: Final = 256
MAX_TAGS: Final = 20
MAX_TAG: Final = 128


class EnqueueOptions(TypedDict, total=False):
    """The keywords of `enqueue`. None means the same as leaving one out. Durations in seconds, or a timedelta."""

    priority: int | str | Level | None
    """urgent (1), high (5), normal (10, the default) or low (15)."""
    delay: Seconds | None
    """Start no sooner than this from now, up to 10 years."""
    at: datetime | None
    """Start no sooner than this moment (with a time zone); one that has passed: at once."""
    id: str | None
    """The job's id; the same id again gives back the first job while it is known. Default: one drawn at random."""
    tags: Sequence[str] | None
    """Up to 20 words to find it by."""
    timeout: Seconds | None
    """How long one attempt may run, over the handler's own setting."""
    attempts: int | None
    """How many attempts before it is a dead letter, over the handler's own setting."""
    backoff: Backoff | Mapping[str, Any] | Seconds | None
    """`{type: exponential|fixed, delaySeconds, maxDelaySeconds, jitter}`, or one fixed delay."""
    tenant: str | None
    """Whom it is for; goes along with the job."""
    trace: str | None
    """W3C `traceparent`."""
    force: bool | None
    """Of a client: send the job also where live workers serve the queue and none of them knows a job of that name."""


OPTION_NAMES: Final = frozenset(EnqueueOptions.__annotations__)


@dataclass(slots=True)  # one per job: freezing makes it three times as slow to make
class NewJob:
    """A job to enqueue: its record is encoded already."""

    queue: str
    id: str
    record: bytes
    level: Level = Level.NORMAL
    delay_ms: int = 0


class Prepared(NamedTuple):  # half the price of a frozen dataclass: one is made per job of a bulk
    """A job ready to be sent."""

    job: NewJob
    id_is_random: bool
    """Its id was drawn at random here, so that the server need not look whether it is known."""
    name: str = ""
    """The job's name, if workers are to know it before it is sent."""


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
    by_name: bool = False,
) -> Prepared:
    """Check a producer's wishes and encode them.

    `data` is NO_PAYLOAD where none was given; `new_id` is taken where the options name none,
    `draw_nonce` is called where they name one; `parent` is the id of the
    job that sends this one; `by_name` where a person wrote the job's name, who may have mistyped it.

    Raises:
        InvalidName: queue, job name, id, priority, tag or tenant outside its alphabet or range.
        InvalidPayload: `data` is not JSON, has NaN, is too deep or, encoded, over `max_bytes`.
        UsageError: any other option out of range, or one that does not exist.
    """
    _check_queue(queue)
    _check_name(name)
    args = () if data is NO_PAYLOAD else (data,)
    given = _given(options) if options else options
    unknown_yet = name if by_name and not given.get("force") else ""
    if not given:
        record = JobRecord(name, args, enqueued_ms=now_ms, queue=queue, parent=parent)
        return Prepared(
            NewJob(queue, new_id, encode_job(record, max_bytes=max_bytes)), id_is_random=True, name=unknown_yet
        )
    level, number = _priority(given.get("priority"))
    record = JobRecord(
        name=name,
        args=args,
        enqueued_ms=now_ms,
        queue=queue,
        priority=number,
        options=_job_options(given),
        tags=_tags(given.get("tags")),
        parent=parent,
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


# A bulk has few queues and job names, again and again.
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
    """Level, and the number to record: None for plain normal."""
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
        if type(tag) is not str or not 0 < len(tag) <= MAX_TAG or not tag.isprintable():
            raise InvalidName(f"tag {tag!r:.80} must have 1 to {MAX_TAG} printable characters")
    return value


def _short_text(value: Any, what: str) -> str | None:
    if value is None or (type(value) is str and 0 < len(value) <= MAX_WORD and value.isprintable()):
        return value
    raise InvalidName(f"`{what}` must have 1 to {MAX_WORD} printable characters, not {value!r:.80}")
