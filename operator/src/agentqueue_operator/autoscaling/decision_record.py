"""A decision as JSON, for `agentqueue explain`: who decided, when, on what, and the last change before."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from agentqueue_operator.autoscaling.model import Decision, Hold, Memory, ScaleTo, ScalingReason, Terms
from agentqueue_operator.autoscaling.wording import counted

VERSION: Final = 1
"""Of the JSON: another one's is not read."""


@dataclass(frozen=True, slots=True)
class Change:
    """The number of pods was changed."""

    at_ms: int
    before: int
    after: int
    reason: ScalingReason


@dataclass(frozen=True, slots=True)
class Owner:
    """The AgentQueue for which a queue is scaled."""

    name: str
    """NAMESPACE/NAME."""
    uid: str
    """Distinguishes it from an AgentQueue of the same name in another cluster, and from an earlier one."""


ANYBODY: Final = Owner("", "")
"""No AgentQueue: `agentqueue up`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The last decision on a queue."""

    by: str
    """`operator` or `up`."""
    at_ms: int
    decision: Decision
    change: Change | None = None
    owner: Owner = ANYBODY


@dataclass(frozen=True, kw_only=True)
class _Record:
    """The JSON: names in camelCase, durations in seconds."""

    __pydantic_config__: ClassVar = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, ser_json_timedelta="float"
    )

    version: Literal[1] = VERSION
    by: str
    at_ms: int
    replicas: int | None
    """None: held."""
    reason: ScalingReason
    terms: Terms
    change: Change | None
    owner: Owner = ANYBODY


_ADAPTER: Final = TypeAdapter(_Record)


def encode(published: Published) -> bytes:
    """The decision as JSON; what it leaves to the next decision stays out."""
    return _ADAPTER.dump_json(_record(published), by_alias=True)


def to_json(published: Published) -> dict[str, Any]:
    """The same as Python's own types."""
    found: dict[str, Any] = _ADAPTER.dump_python(_record(published), mode="json", by_alias=True)
    return found


def decode(raw: bytes) -> Published:
    """The decision again.

    Raises:
        ValueError: another version wrote it, or it is no decision.
    """
    try:
        record = _ADAPTER.validate_json(raw)
    except ValidationError as error:
        problems = counted(error.error_count(), "problem")
        raise ValueError(f"not a decision that this version can read ({problems})") from None
    decision: Decision = Hold(record.reason, record.terms, Memory())
    if record.replicas is not None:
        decision = ScaleTo(record.replicas, record.reason, record.terms, Memory())
    return Published(by=record.by, at_ms=record.at_ms, decision=decision, change=record.change, owner=record.owner)


def _record(published: Published) -> _Record:
    decision = published.decision
    return _Record(
        by=published.by,
        at_ms=published.at_ms,
        replicas=decision.replicas if isinstance(decision, ScaleTo) else None,
        reason=decision.reason,
        terms=decision.terms,
        change=published.change,
        owner=published.owner,
    )
