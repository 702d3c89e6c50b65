"""The work queue, in virtual time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import structlog

from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable, Gone, NotLeading
from agentqueue_operator.controller.scaling.scaler import MARKS_KEPT_S
from agentqueue_operator.controller.work_queue import MIN_GAP_S, PERIOD_S, WorkQueue
from agentqueue_operator.resources.kinds import QueueRef

A, B = QueueRef("n", "a"), QueueRef("n", "b")
pytestmark = pytest.mark.looptime


@dataclass
class FakeWorld:
    """AgentQueues, the results of their reconciles, and their times."""

    there: set[QueueRef] = field(default_factory=lambda: {A, B})
    leading: bool = True
    reconciles: list[tuple[QueueRef, float]] = field(default_factory=list)
    errors: dict[QueueRef, list[Exception | float | None]] = field(default_factory=dict)
    hangs: asyncio.Event | None = None
    made: int = 0
    closed: int = 0
    results: list[tuple[QueueRef, str | None]] = field(default_factory=list)
    removed: list[QueueRef] = field(default_factory=list)

    def on_reconciled(self, ref: QueueRef, seconds: float, error: str | None) -> None:
        self.results.append((ref, error))

    def on_removed(self, ref: QueueRef) -> None:
        self.removed.append(ref)

    def times(self, ref: QueueRef) -> list[float]:
        return [at for one, at in self.reconciles if one == ref]


class Reconciler:
    def __init__(self, ref: QueueRef, world: FakeWorld) -> None:
        self.ref, self.world = ref, world
        world.made += 1

    async def run(self) -> float | None:
        self.world.reconciles.append((self.ref, now()))
        if self.world.hangs is not None:
            await self.world.hangs.wait()
        answers = self.world.errors.get(self.ref) or [None]
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        self.world.closed += 1


class DeletedMeanwhile(Reconciler):
    """A reconciler whose AgentQueue is deleted during the reconcile, which then fails."""

    def __init__(self, ref: QueueRef, world: FakeWorld, error: Exception) -> None:
        super().__init__(ref, world)
        self.error = error

    async def run(self) -> float | None:
        self.world.there.discard(self.ref)
        raise self.error


def now() -> float:
    return asyncio.get_running_loop().time()


Start = Callable[..., WorkQueue]


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld()


def loops_of(world: FakeWorld) -> WorkQueue:
    return WorkQueue(
        lambda ref: Reconciler(ref, world),
        exists=lambda ref: ref in world.there,
        leads=lambda: world.leading,
        clock=now,
        observer=world,
    )


async def test_a_reconcile_runs_immediately_and_then_every_period(world: FakeWorld) -> None:
    work_queue = loops_of(world)
    work_queue.wake(A)
    await asyncio.sleep(2 * PERIOD_S + 0.1)
    assert [round(at, 3) for at in world.times(A)] == [0, PERIOD_S, 2 * PERIOD_S]
    assert len(work_queue) == 1
    await work_queue.close()
    assert (world.made, world.closed, world.removed) == (1, 1, [A])


async def test_wakes_in_a_burst_are_one_reconcile(world: FakeWorld) -> None:
    work_queue = loops_of(world)
    work_queue.wake(A)
    await asyncio.sleep(1)
    for _ in range(10):
        work_queue.wake(A)
    assert work_queue.waiting() == 1
    await asyncio.sleep(1)
    assert [round(at, 3) for at in world.times(A)] == [0, 1]
    work_queue.wake(A)
    await asyncio.sleep(0.01)
    work_queue.wake(A)  # right after a reconcile: not at once
    await asyncio.sleep(1)
    first, second = world.times(A)[-2:]
    assert second - first >= MIN_GAP_S
    await work_queue.close()


async def test_a_reconcile_may_request_the_next_one(world: FakeWorld) -> None:
    world.errors[A] = [0.5]
    work_queue = loops_of(world)
    work_queue.wake(A)
    await asyncio.sleep(1)
    assert [round(at, 3) for at in world.times(A)] == [0, 0.5]
    await work_queue.close()


async def test_an_error_does_not_affect_the_others_and_is_backed_off(world: FakeWorld) -> None:
    world.errors[A] = [RuntimeError("boom") for _ in range(8)]
    work_queue = loops_of(world)
    work_queue.wake(A)
    work_queue.wake(B)
    for _ in range(100):
        await asyncio.sleep(0.5)
        work_queue.wake(A)  # events don't shorten it
    gaps = [after - before for before, after in zip(world.times(A), world.times(A)[1:], strict=False)]
    assert [1 <= gap / 2**number <= 1.25 for number, gap in enumerate(gaps)] == [True] * len(gaps)
    assert len(world.times(B)) == 11
    assert work_queue.oldest_reconcile_s() == 0  # a backoff is no lateness
    assert world.results.count((A, "RuntimeError")) == len(world.times(A))
    await work_queue.close()


@pytest.mark.parametrize("error", [Gone("n/a was deleted"), ApiRefused(404, "NotFound", "pods 'a-1' not found")])
async def test_a_reconcile_of_a_deleted_agent_queue_ends_without_an_error(world: FakeWorld, error: Exception) -> None:
    work_queue = WorkQueue(
        lambda ref: DeletedMeanwhile(ref, world, error),
        exists=lambda ref: ref in world.there,
        leads=lambda: True,
        clock=now,
        observer=world,
    )
    with structlog.testing.capture_logs() as logs:
        work_queue.wake(A)
        await asyncio.sleep(10)
    assert [line for line in logs if line["log_level"] != "debug"] == []
    assert (world.results, world.removed, len(work_queue)) == ([(A, None)], [A], 0)
    await work_queue.close()


async def test_a_deletion_that_the_watch_has_not_delivered_is_no_failure(world: FakeWorld) -> None:
    world.errors[A] = [Gone("n/a was deleted")]
    work_queue = loops_of(world)
    work_queue.wake(A)
    await asyncio.sleep(PERIOD_S + 0.1)
    assert world.results == [(A, None), (A, None)]
    await work_queue.close()


async def test_a_rejection_for_an_existing_agent_queue_is_a_failure(world: FakeWorld) -> None:
    world.errors[A] = [ApiRefused(403, "Forbidden", "no")]
    work_queue = loops_of(world)
    work_queue.wake(A)
    await asyncio.sleep(0.1)
    assert world.results == [(A, "ApiRefused")]
    await work_queue.close()


async def test_the_backoff_is_limited_and_restarts_after_a_success(world: FakeWorld) -> None:
    world.errors[A] = [*(RuntimeError("boom") for _ in range(12)), None, RuntimeError("boom")]
    work_queue = loops_of(world)
    work_queue.wake(A)
    await asyncio.sleep(1000)
    gaps = [after - before for before, after in zip(world.times(A), world.times(A)[1:], strict=False)]
    assert max(gaps) <= MARKS_KEPT_S - 20, "marks would run out between two reconciles that fail"
    assert 1 <= gaps[13] <= 1.25
    await work_queue.close()


async def test_the_delay_that_an_unavailable_server_asks_for_is_kept(world: FakeWorld) -> None:
    world.errors[A] = [ApiUnavailable("429", retry_after_s=30.0)]
    work_queue = loops_of(world)
    work_queue.wake(A)
    await asyncio.sleep(40)
    assert 30 <= world.times(A)[1] <= 37
    await work_queue.close()


async def test_a_replica_that_does_not_lead_waits_and_drops_its_reconcilers(world: FakeWorld) -> None:
    world.leading = False
    work_queue = loops_of(world)
    work_queue.wake(A)
    await asyncio.sleep(20)
    assert world.reconciles == []
    world.leading = True
    work_queue.wake_all()
    await asyncio.sleep(1)
    assert len(world.reconciles) == 1
    world.errors[A] = [NotLeading("another does")]
    work_queue.wake(A)
    await asyncio.sleep(1)
    assert world.results[-1] == (A, None)
    world.leading = False
    await asyncio.sleep(10)
    assert (world.made, world.closed) == (1, 1)
    world.leading = True
    await asyncio.sleep(10)
    assert world.made == 2
    await work_queue.close()


async def test_the_task_ends_with_its_agent_queue_and_starts_with_its_successor(world: FakeWorld) -> None:
    work_queue = loops_of(world)
    work_queue.wake(A)
    await asyncio.sleep(1)
    world.there.remove(A)
    work_queue.wake(A)
    await asyncio.sleep(1)
    assert (len(work_queue), world.closed) == (0, 1)
    work_queue.wake(A)
    assert len(work_queue) == 0
    world.there.add(A)
    work_queue.wake(A)
    await asyncio.sleep(1)
    assert (len(work_queue), world.made) == (1, 2)
    await work_queue.close()
    work_queue.wake(A)
    assert len(work_queue) == 0  # closed is closed


async def test_a_stuck_reconcile_is_overdue(world: FakeWorld) -> None:
    world.hangs = asyncio.Event()
    work_queue = loops_of(world)
    assert work_queue.oldest_reconcile_s() == 0
    work_queue.wake(A)
    await asyncio.sleep(30)
    assert work_queue.oldest_reconcile_s() == pytest.approx(30)
    world.hangs.set()
    await asyncio.sleep(1)
    assert work_queue.oldest_reconcile_s() == 0
    await work_queue.close()
