"""Limits by name: their definitions, as resources, variables and Redis hold them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple

import orjson

from agentqueue.errors import UsageError
from agentqueue.keys import check_limit_name
from agentqueue.model.exceptions import describe_value
from agentqueue.model.numbers import plain_number

MAX_COUNT: Final = 1_000_000_000
"""Highest number of requests and units per minute."""
MAX_LIMITS: Final = 100
"""Number of limits that one source may define."""
MAX_LIMITS_PER_CALL: Final = 10
"""Number of limits that one call may name."""
DEFAULT_THROTTLED_S: Final = 3_600.0
"""Time that a job may be throttled by default, in seconds: an hour. A 429 that never ends needs a person."""
WINDOW_COUNTS: Final = 60
"""Number of counts of a window: one a second, if it is a minute."""
WAITERS_AT_GATE: Final = 20
"""Number of calls in a limit's line at which agents with that limit start no more jobs."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What all workers together may ask of a provider. None sets no limit."""

    requests_per_minute: int | None = None
    """Calls in any 60 seconds."""
    units_per_minute: int | None = None
    """Units, such as tokens, of the calls in any 60 seconds."""
    concurrent: int | None = None
    """Calls that run at the same time."""
    burst: int | None = None
    """Calls that start at once; later ones start evenly over the minute. It needs `requests_per_minute`."""
    default_units: int | None = None
    """Units of a call that does not say its own, until ten calls have said theirs. By default a 20th of
    `units_per_minute`."""
    headroom_percent: float = 0.0
    """Percentage that is added to the learned units of a call that does not say its own."""
    per: str | None = None
    """`tenant`: each tenant has the limit for itself."""
    refund: bool = True
    """Units that a call has reserved and not taken are free again. Set it to False for a provider that counts the
    tokens a request may take at most."""
    max_throttled_seconds: float = DEFAULT_THROTTLED_S
    """Time for which refusals of the provider may keep a job from going on. Then it becomes a dead letter."""
    window_seconds: float = 60.0
    """Length of the window, for tests that can't take minutes. The limits per minute hold for this time then."""

    def __post_init__(self) -> None:
        for name, attribute in _WHOLE.items():
            value = getattr(self, attribute)
            if value is not None and not (type(value) is int and 1 <= value <= MAX_COUNT):
                raise UsageError(f"`{name}` must be a whole number from 1 to {MAX_COUNT:,}, not {_shown(value)}")
        if self.requests_per_minute is None and self.units_per_minute is None and self.concurrent is None:
            raise UsageError("a limit needs requestsPerMinute, unitsPerMinute or concurrent")
        if self.burst is not None and self.requests_per_minute is None:
            raise UsageError("`burst` needs requestsPerMinute, at whose pace later calls start")
        if self.default_units is not None and not self.default_units <= (self.units_per_minute or 0):
            raise UsageError("`defaultUnits` needs a unitsPerMinute, and must not exceed it")
        if self.per not in (None, "tenant"):
            raise UsageError(f"`per` must be tenant or left out, not {_shown(self.per)}")
        if type(self.refund) is not bool:
            raise UsageError(f"`refund` must be true or false, not {_shown(self.refund)}")
        for name, attribute, least, most in _NUMBERS:
            number = plain_number(getattr(self, attribute))
            if number is None or not least <= number <= most:
                raise UsageError(
                    f"`{name}` must be a number from {least:g} to {most:g}, not {_shown(getattr(self, attribute))}"
                )

    @property
    def bucket_ms(self) -> float:
        """Return the length of one count of the window, in ms."""
        return 1000 * self.window_seconds / WINDOW_COUNTS


def _shown(value: object) -> str:
    return describe_value(value, repr, limit=80)


_WHOLE: Final = {
    "requestsPerMinute": "requests_per_minute",
    "unitsPerMinute": "units_per_minute",
    "concurrent": "concurrent",
    "burst": "burst",
    "defaultUnits": "default_units",
}
_NUMBERS: Final = (
    ("headroomPercent", "headroom_percent", 0, 1_000),
    ("maxThrottledSeconds", "max_throttled_seconds", 1, 31_536_000),
    ("windowSeconds", "window_seconds", 0.6, 3_600),
)
_FIELDS: Final = {
    **_WHOLE,
    **{name: attribute for name, attribute, *_ in _NUMBERS},
    "per": "per",
    "refund": "refund",
}
"""Names of a limit's fields in the resource, each with the attribute of `Limit`."""


def parse_limit(given: Mapping[str, Any]) -> Limit:
    """Return the limit with the fields of the resource, without its name.

    Raises:
        UsageError: A field is unknown or out of range.
    """
    unknown = [name for name in given if name not in _FIELDS]
    if unknown:
        raise UsageError(f"a limit has no field {_shown(unknown[0])}; it has {', '.join(_FIELDS)}")
    return Limit(**{_FIELDS[name]: value for name, value in given.items() if value is not None})


class LimitList(NamedTuple):
    """A list of limits, as AGENTQUEUE_LIMITS and `--limits` have it."""

    defined: Mapping[str, Limit]
    """The limits that the list defines, by name."""
    names: Sequence[str]
    """The names of all, in their order."""


NO_LIMITS: Final = LimitList({}, ())


def parse_limits(given: Any) -> LimitList:
    """Return a list of limits.

    Args:
        given: A list. An item is a limit as in the resource, or the name of one that is defined elsewhere.

    Raises:
        UsageError: The value is no such list, or has a name twice.
    """
    if not isinstance(given, list) or len(given) > MAX_LIMITS:
        raise UsageError(f"limits must be a list of at most {MAX_LIMITS} limits, as in the resource, or of their names")
    defined: dict[str, Limit] = {}
    names: list[str] = []
    for item in given:
        name = check_limit_name(item.get("name") if isinstance(item, dict) else item)  # type: ignore[arg-type]
        if name in names:
            raise UsageError(f"limit {name!r} is there twice")
        names.append(name)
        if isinstance(item, dict):
            try:
                defined[name] = parse_limit({field: value for field, value in item.items() if field != "name"})
            except UsageError as exc:
                raise UsageError(f"limit {name!r}: {exc}") from exc
    return LimitList(defined, tuple(names))


def limit_to_json(limit: Limit) -> dict[str, Any]:
    """Return a limit with the fields of the resource. Those that set nothing are left out."""
    defaults = {field.name: field.default for field in fields(Limit)}
    values = {name: getattr(limit, attribute) for name, attribute in _FIELDS.items()}
    return {name: value for name, value in values.items() if value != defaults[_FIELDS[name]]}


def encode_limit(limit: Limit, source: str) -> bytes:
    """Return a definition as Redis holds it, with the source that has written it."""
    return orjson.dumps({**limit_to_json(limit), "source": source})


def decode_limit(raw: bytes) -> tuple[Limit, str]:
    """Return a definition from Redis, and its source.

    Raises:
        UsageError: A newer version has written it with fields that this one does not know.
    """
    wire = orjson.loads(raw)
    return parse_limit({name: value for name, value in wire.items() if name != "source"}), str(wire.get("source", ""))


def check_limit_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a call's limits, sorted.

    Raises:
        UsageError: There is none, there are too many, one is there twice, or one is not a name.
    """
    found = tuple(sorted(map(check_limit_name, names)))
    if not 1 <= len(found) <= MAX_LIMITS_PER_CALL:
        raise UsageError(f"ctx.limit takes 1 to {MAX_LIMITS_PER_CALL} names of limits, not {len(found)}")
    if len(set(found)) < len(found):
        raise UsageError(f"ctx.limit names a limit twice: {', '.join(found)}")
    return found
