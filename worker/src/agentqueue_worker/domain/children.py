"""Decides how children are named, sent and read. Pure."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from agentqueue.agent.children import ChildFailed
from agentqueue.agent.durable import ChildCall
from agentqueue.agent.outcomes import DurableError
from agentqueue.errors import InvalidPayload
from agentqueue.model.child_return import decode_return
from agentqueue.model.new_job import MAX_CHILD_BYTES_PER_CALL, MAX_CHILDREN_PER_CALL


def gather_name(children: Sequence[ChildCall]) -> str:
    """Return the name of a gather: one child's place, or a hash of the places of several."""
    if len(children) == 1:
        return children[0].place
    return hashlib.sha256("\0".join(child.place for child in children).encode()).hexdigest()[:16]


def describe_children(children: Sequence[ChildCall]) -> str:
    """Return what a gather waits for, for people: `child search/find#1`, `12 children (mail/send, search/find)`."""
    if len(children) == 1:
        return f"child {children[0].place}"
    targets = sorted({f"{child.job.queue}/{child.name}" for child in children})
    return f"{len(children)} children ({', '.join(targets[:3])}{', …' * (len(targets) > 3)})"


def split_children(children: Sequence[ChildCall]) -> Iterator[Sequence[ChildCall]]:
    """Yield the children in parts that one call may send."""
    part: list[ChildCall] = []
    size = 0
    for child in children:
        size += len(child.job.record)
        if part and (len(part) >= MAX_CHILDREN_PER_CALL or size > MAX_CHILD_BYTES_PER_CALL):
            yield part
            part, size = [], len(child.job.record)
        part.append(child)
    if part:
        yield part


def id_of(child: ChildCall) -> str:
    """Return the ID of a child that is sent."""
    assert child.id is not None
    return child.id


def result_of(child: ChildCall, raw: bytes | None) -> Any:
    """Return the result of a child, or the error of one that has failed.

    Args:
        child: the child, which is sent.
        raw: its return, JSON.

    Raises:
        DurableError: its return is gone, or does not fit its handler's annotation.
    """
    if raw is None:
        raise DurableError(f"what child {child.id} returned is gone; another program has deleted or changed it")
    try:
        returned = decode_return(raw)
        if returned.error is None:
            return returned.value if child.load is None else child.load(returned.value)
    except InvalidPayload as exc:
        raise DurableError(f"child {child.place} ({child.id}): {exc}") from exc
    error = returned.error
    return ChildFailed(
        f"child {child.place} ({child.id}) is {error.state}: {error.line}",
        id=id_of(child),
        target=(child.job.queue, child.name),
        error=error.line,
        state=str(error.state),
    )
