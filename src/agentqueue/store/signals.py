"""Signals to jobs: sent by clients, and taken by waits of running jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from agentqueue.errors import JournalUnreadable, QueueUnavailable
from agentqueue.keys import JOURNAL, SIGNALS
from agentqueue.store.engine import Engine
from agentqueue.store.jobs import Store
from agentqueue.store.scripts import load

MAX_SIGNALS: Final = 1_000
"""Number of signals that a job may get in its life. They are kept until it ends."""
MAX_SIGNAL_BYTES: Final = 1_048_576
"""Size of the data of all signals of a job, in bytes: 1 MiB."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait of a running job."""

    field: str
    """Field of the journal."""
    kind: str
    """`signal` or `sleep`."""
    what: str
    """Name of the signal; a note for a sleep."""
    ends_ms: int | None = None
    """Time after which it ends by itself, in ms from its first call; None for never."""


@dataclass(frozen=True, slots=True)
class WaitReply:
    """Reply of `ask_waits`."""

    now_ms: int
    """Server time."""
    choice: bytes | None
    """Text of the choice in the journal, if it is made."""
    texts: Sequence[bytes]
    """Text of each wait in the journal (`agentqueue.model.suspension.decode_wait`); empty for a wait that a choice has
    left out."""


async def send_signal(
    store: Store, queue: str, job_id: str, name: str, data: bytes, *, sender: str | None = None, signal_id: str = ""
) -> str:
    """Send a signal to a job of a queue.

    Args:
        store: the queues.
        queue: queue of the job.
        job_id: ID of the job.
        name: name of the signal.
        data: JSON.
        sender: who sends it.
        signal_id: ID of the signal, which counts once; empty for none.

    Returns:
        `sent`, `known` (a signal with the ID was sent before), `full`, `final` (the job has ended) or `unknown`.

    Raises:
        QueueFull: the server is at `maxmemory`.
    """
    args = [job_id, name, data, orjson.dumps(sender), signal_id, MAX_SIGNALS, MAX_SIGNAL_BYTES]
    reply: bytes = await store.server.run(load("signal"), queue, args)
    return reply.decode()


async def ask_waits(
    engine: Engine,
    *,
    lease: bytes,
    job_id: str,
    waits: Sequence[Wait],
    choice: str = "",
    progress: Mapping[str, bytes | str | int] | None = None,
) -> WaitReply | None:
    """Begin waits of a running job, or ask for their answers. Sent twice, it has the same answers.

    Args:
        engine: the worker's queue.
        lease: value of the in-progress key of this delivery.
        job_id: ID of the job.
        waits: the waits. A wait that began earlier keeps its end.
        choice: field of the journal for the choice between them; empty if each of them gets an answer.
        progress: fields to write to the job's meta hash if a wait gets its answer.

    Returns:
        None if the worker no longer holds this delivery.

    Raises:
        JournalUnreadable: another program has written a key of another type in the place of the journal or mailbox.
    """
    notes = [part for pair in (progress or {}).items() for part in pair]
    args: list[Any] = [lease, job_id, choice, len(notes), *notes]
    for wait in waits:
        args += (wait.field, wait.kind, wait.what, "" if wait.ends_ms is None else wait.ends_ms)
    try:
        reply = await engine.server.run(load("wait", allow_oom=True), engine.keys.queue, args)
    except QueueUnavailable as exc:
        if "WRONGTYPE" not in str(exc):
            raise
        raise JournalUnreadable(
            f"the waits of job {job_id} can't be read: {JOURNAL}{job_id} or {SIGNALS}{job_id} holds another Redis "
            "type, which AgentQueue did not write; restore the key, or delete it and run the job from its start"
        ) from exc
    if reply is None:
        return None
    now_ms, chosen, texts = reply
    return WaitReply(now_ms, chosen or None, texts)
