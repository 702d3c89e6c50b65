"""Tests of the writer of schedules: what it writes in each round, and what it does not forget while Redis is away."""

import pytest

from agentqueue.errors import QueueUnavailable
from agentqueue.model.schedule import Schedule
from agentqueue_operator.queues.schedule_writer import ScheduleWriter
from tests.support.scaling import FakeQueues

NIGHTLY = Schedule(name="nightly", cron="0 3 * * *", job="report")


async def test_queues_without_schedules_cost_one_call_and_those_with_some_one_in_each_round() -> None:
    queues, writer = FakeQueues(), ScheduleWriter()
    for _ in range(3):
        await writer.write(queues, {"a": (NIGHTLY,), "b": ()})
    assert queues.puts == ["a", "b", "a", "a"]
    await writer.write(queues, {"a": (), "b": (NIGHTLY,)})
    assert queues.schedules == {"a": (), "b": (NIGHTLY,)}


async def test_a_queue_that_was_left_is_cleared_once_redis_answers_unless_it_has_come_back() -> None:
    queues, writer = FakeQueues(down=True), ScheduleWriter()
    with pytest.raises(QueueUnavailable):
        await writer.write(queues, {"a": ()}, left=["old", "gone"])
    queues.down = False
    await writer.write(queues, {"a": (), "old": (NIGHTLY,)})
    assert queues.schedules == {"gone": (), "a": (), "old": (NIGHTLY,)}
    queues.puts.clear()
    await writer.write(queues, {"a": (), "old": (NIGHTLY,)})
    assert queues.puts == ["old"]


async def test_all_are_removed_as_far_as_redis_answers() -> None:
    queues, writer = FakeQueues(), ScheduleWriter()
    await writer.remove_all(queues, ["a", "b"])
    assert queues.puts == ["a", "b"]
    queues.down = True
    await writer.remove_all(queues, ["c"])
    assert queues.puts == ["a", "b"]
