"""What `ctx.child` and `ctx.gather` do: they send jobs, and wait for what those return.

A child is known by its place: its target, its key, and how often the run has asked for it. A gather is known by its
children. So a later run sends nothing twice, and gets the same answers.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import orjson
import structlog

from agentqueue.agent.children import MAX_GATHERED
from agentqueue.agent.durable import ChildCall, GatherCall
from agentqueue.agent.outcomes import DurableError
from agentqueue.store.children import (
    MAX_CANCELLED_PER_CALL,
    RETURNS_PER_READ,
    Children,
    GatherRule,
    NewChild,
    SendStatus,
)
from agentqueue_worker.app.durable_run import DurableRun
from agentqueue_worker.domain.children import describe_children, gather_name, id_of, result_of, split_children

T = TypeVar("T")
ENDED: Final = b'{"is":'
"""Beginning of the journal's entry of a gather that has its answer."""
STANDS: Final = b'"settled":true,"v":'
"""Part of such an entry that says that a replay keeps the answer."""
log = structlog.get_logger("agentqueue.worker")


class ChildCalls:
    """The children of one run."""

    def __init__(self, run: DurableRun, children: Children) -> None:
        self._run = run
        self._children = children
        self._calls: list[ChildCall] = []
        self._found: set[ChildCall] = set()
        """Children that only gathers have asked for whose answers stand, so that failed ones have not run again."""
        run.at_close.append(self._warn_of_forgotten)

    def child(self, call: ChildCall) -> None:
        """Take the place of a call of `ctx.child`. See the port."""
        target = f"{call.job.queue}/{call.name}"
        name = target if call.key is None else f"{target}:{call.key}"
        call.place = self._run.reserve("child", name, f'child "{name}"').removeprefix("child:")
        self._calls.append(call)

    def gather(self, call: GatherCall) -> Coroutine[Any, Any, Any]:
        """Take the place of a gather, and return the coroutine that waits for the children. See the port."""
        children = list(dict.fromkeys(call.children))
        if len(children) > MAX_GATHERED:
            raise DurableError(
                f"job {self._run.job.id} gathers {len(children):,} children, over the limit of {MAX_GATHERED:,}; "
                "gather them in parts, or let children have children"
            )
        for child in children:
            child.is_awaited = True
        what = describe_children(children)
        field = self._run.reserve("children", gather_name(children), f"gather of {what}") if children else ""
        return self._gather(call, children, field, what)

    async def _gather(self, call: GatherCall, children: Sequence[ChildCall], field: str, what: str) -> Any:
        if not children:
            return []
        run = self._run
        await run.open()
        entry = run.entries.get(field, b"")
        if not entry.startswith(ENDED):
            await run.begin_new_call()
        stands = STANDS in entry
        for with_records in (False, True) if entry else (True,):  # an earlier run has sent them, except failed ones
            to_send = [child for child in children if child.id is None or (child in self._found and not stands)]
            for chunk in split_children(to_send):
                await self._send(chunk, with_records=with_records, may_run_again=not stands)
        answer = await self._answer(call, children, field, what)
        if call.cancel_rest and "all" not in answer:
            for start in range(0, len(children), MAX_CANCELLED_PER_CALL):
                ids = [id_of(child) for child in children[start : start + MAX_CANCELLED_PER_CALL]]
                await self._ask(partial(self._children.cancel, lease=run.lease, parent=run.job.id, ids=ids))
        if "late" in answer:
            raise TimeoutError(f"{what} have not ended within {call.timeout:g} s; they go on")
        if "failed" in answer:
            failed = children[answer["failed"]]
            raise (await self._read([failed]))[failed]
        found = await self._read(children if "all" in answer else [children[position] for position in answer["ended"]])
        results = [found[child] for child in call.children if child in found]
        return results[0] if call.of_one else results

    async def _send(self, chunk: Sequence[ChildCall], *, with_records: bool, may_run_again: bool) -> None:
        """Send children, and note their IDs, except of those that must be sent with their records."""
        run = self._run
        new = [NewChild(child.place, child.fingerprint, child.job) for child in chunk]
        sent = await self._ask(
            lambda: self._children.send(
                lease=run.lease,
                parent=run.job.id,
                enqueueing=run.job.record.enqueueing,
                children=new,
                with_records=with_records,
                may_run_again=may_run_again,
            )
        )
        run.has_journal = True
        self._found = self._found - set(chunk) if may_run_again else self._found | set(chunk)
        for child, found in zip(chunk, sent, strict=True):
            if found.status is SendStatus.DIFFERS:
                raise DurableError(
                    f'child "{child.place}" of job {run.job.id} has another target or payload than in an earlier run; '
                    "give children a key= of their item, and put values that change, such as times, into a step"
                )
            child.id = None if found.status is SendStatus.MISSING else found.id

    async def _answer(self, call: GatherCall, children: Sequence[ChildCall], field: str, what: str) -> dict[str, Any]:
        """Wait until the gather has an answer, as gather.lua describes it, and return it."""
        run = self._run
        if field not in run.entries:
            run.check_room()
        rule = GatherRule(
            need=min(call.need, len(children)),
            limit=0 if call.collect else max(len(children) - call.need, 0) + 1,
            timeout_ms=None if call.timeout is None else round(call.timeout * 1000),
        )
        while True:
            reply = await self._ask(
                lambda: self._children.gather(
                    lease=run.lease,
                    parent=run.job.id,
                    field=field,
                    what=orjson.dumps(what),
                    rule=rule,
                    delivery=run.job.delivery,
                    ids=[id_of(child) for child in children],
                    progress=run.progress_fields(),
                )
            )
            run.entries[field] = reply.entry
            wire = orjson.loads(reply.entry)
            if "wait" not in wire:
                run.job.has_progressed = True
                return wire["v"]  # type: ignore[no-any-return]
            seconds_left = (wire["until"] - reply.now_ms) / 1000 if "until" in wire else None
            await run.hold.wait([field], seconds_left, needs_event=True)
            await run.check()

    async def _read(self, children: Sequence[ChildCall]) -> dict[ChildCall, Any]:
        """Return the results of children that have ended, with an error for each that has failed."""
        found: dict[ChildCall, Any] = {}
        for start in range(0, len(children), RETURNS_PER_READ):
            some = children[start : start + RETURNS_PER_READ]
            ids = [id_of(child) for child in some]
            values = await self._run.send(partial(self._children.returns, self._run.job.id, ids))
            for child, raw in zip(some, values, strict=True):
                found[child] = result_of(child, raw)
        return found

    async def _ask(self, call: Callable[[], Awaitable[T | None]]) -> T:
        """Send a call that names this delivery, and return its reply. The run ends if another delivery has begun."""
        run = self._run
        run.in_flight += 1
        try:
            reply = await run.send(call)
        finally:
            run.in_flight -= 1
        if not reply:
            run.stop_as_lost()
        return reply  # type: ignore[return-value]

    def _warn_of_forgotten(self) -> None:
        """Log the children that the handler has neither awaited nor gathered, and which were not sent therefore."""
        for call in self._calls:
            if not call.is_awaited and self._run.job.ending is None:
                log.warning("child_not_sent", job_id=self._run.job.id, child=call.place, reason="nobody awaits it")
