"""JSON form of a decision, for `agentqueue explain`: its author, time, terms, and the last change before it."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from agentqueue.model.wording import counted
from agentqueue_operator.autoscaling.model import Decision, Hold, Memory, ScaleTo, ScalingReason, Terms

VERSION: Final = 2
"""Version of the JSON form. Records of another version are not read."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the number of pods."""

    at_ms: int
    before: int
    after: int
    reason: ScalingReason


@dataclass(frozen=True, slots=True)
class Owner:
    """The AgentQueue for which a queue is scaled."""

    name: str
    """Namespace and name, as NAMESPACE/NAME."""
    uid: str
    """UID of the resource. It distinguishes an AgentQueue of the same name in another cluster, and an earlier one."""


NO_OWNER: Final = Owner("", "")
"""Owner in decisions of `agentqueue up`, which has no AgentQueue in a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedDecision:
    """The last decision on a queue."""

    by: str
    """Program that decided: `operator` or `up`."""
    at_ms: int
    decision: Decision
    change: Change | None = None
    owner: Owner = NO_OWNER


@dataclass(frozen=True, kw_only=True)
class _Record:
    """The JSON form. Names are in camelCase, durations in seconds."""

    __pydantic_config__: ClassVar = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, ser_json_timedelta="float"
    )

    version: Literal[2] = VERSION
    by: str
    at_ms: int
    replicas: int | None
    """None for a decision to hold."""
    reason: ScalingReason
    terms: Terms
    change: Change | None
    owner: Owner = NO_OWNER


_ADAPTER: Final = TypeAdapter(_Record)


def encode(published: PublishedDecision) -> bytes:
    """Return the decision as JSON, without its memory."""
    return _ADAPTER.dump_json(_record(published), by_alias=True)


def to_json(published: PublishedDecision) -> dict[str, Any]:
    """Return the JSON form of the decision as a dictionary."""
    fields: dict[str, Any] = _ADAPTER.dump_python(_record(published), mode="json", by_alias=True)
    return fields


def decode(raw: bytes) -> PublishedDecision:
    """Return the decision that `encode` wrote.

    Raises:
        ValueError: the record has another version, or is not a decision.
    """
    try:
        record = _ADAPTER.validate_json(raw)
    except ValidationError as error:
        problems = counted(error.error_count(), "problem")
        raise ValueError(f"not a decision that this version can read ({problems})") from None
    decision: Decision = Hold(record.reason, record.terms, Memory())
    if record.replicas is not None:
        decision = ScaleTo(record.replicas, record.reason, record.terms, Memory())
    return PublishedDecision(
        by=record.by, at_ms=record.at_ms, decision=decision, change=record.change, owner=record.owner
    )


def _record(published: PublishedDecision) -> _Record:
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
