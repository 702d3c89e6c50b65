"""What must hold after plans have been carried out, whatever was cut, killed or sent twice."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, assert_never

from redis import Redis

from agentqueue import keys
from agentqueue.keys import KeySpace
from agentqueue.model.job import State
from tests.support.plans.driver import Driver
from tests.support.plans.plan import (
    QUEUES,
    Children,
    Die,
    Fail,
    First,
    Once,
    Plan,
    Remind,
    Signal,
    Sleep,
    Step,
    Together,
)
from tests.support.plans.recorder import Findings
from tests.support.replies import plain

OWN_KEYS = (keys.META, keys.JOURNAL, keys.SIGNALS, keys.CHILDREN, keys.RETURNS, keys.IN_PROGRESS, keys.RETRY)
"""Prefixes of keys that a job leaves behind only as a dead letter."""


@dataclass(frozen=True, slots=True)
class Report:
    """The numbers of a run; all but the first and the last must be 0."""

    jobs: int
    steps_repeated: int
    once_entered_twice: int
    signals_lost: int
    signals_consumed_twice: int
    values_changed: int
    steps_interrupted: int
    """Steps that were entered again since a worker ended before their value was kept."""

    @classmethod
    def sum(cls, reports: "Sequence[Report]") -> "Report":
        """Return the numbers of all runs together."""
        return cls(*(sum(getattr(report, each.name) for report in reports) for each in fields(cls)))

    def __str__(self) -> str:
        return ", ".join(f"{each.name.replace('_', ' ')} {getattr(self, each.name)}" for each in fields(self))


def check(driver: Driver, server: Redis, *, kills: int | None = None) -> Report:
    """Check what a driver's plans have done, and return the numbers.

    Args:
        driver: the driver, whose `run` has ended.
        server: the server.
        kills: number of workers that have ended, if steps may have been cut off by nothing else.
    """
    found = Findings(driver.recorder.events(), once_steps(driver.plans.values()))
    assert not found.repeated, f"steps ran again after they were done: {found.repeated}"
    assert not found.once_twice, f"`once` steps were entered twice: {found.once_twice}"
    assert not found.changed, f"calls gave different values in different runs: {found.changed}"
    assert not found.invented, f"steps have values that nobody returned: {found.invented}"
    assert not found.consumed_twice, f"signals were taken twice: {found.consumed_twice}"
    twice = [data for data, times in driver.sent.items() if times > 1]
    assert not twice, f"signals counted twice: {twice}"
    lost = lost_signals(driver, found)
    assert not lost, f"signals were lost: {lost}"
    if kills == 0:
        assert found.interrupted == 0, "steps ran twice although nobody was killed"
    for path, status in driver.ended.items():
        if path in driver.cancelled and status.state is State.CANCELLED:
            continue
        assert status.state is State.COMPLETED, f"{path} is {status.state}: {status.error}"
        match_result(driver.roots[path], status.result)
    left = leftovers(server)
    assert not left, f"keys were left behind: {left}"
    return Report(
        jobs=len(driver.started),
        steps_repeated=len(found.repeated),
        once_entered_twice=len(found.once_twice),
        signals_lost=len(lost),
        signals_consumed_twice=len(found.consumed_twice),
        values_changed=len(found.changed),
        steps_interrupted=found.interrupted,
    )


def once_steps(plans: Iterable[Plan]) -> frozenset[str]:
    """Return the names of the steps with `once=True`."""
    return frozenset(part.name for plan in plans for part in plan.parts if isinstance(part, Once))


def lost_signals(driver: Driver, found: Findings) -> list[str]:
    """Return accepted signals that no wait has taken although its job has completed."""
    completed = {event.key for event in found.events if event.kind == "end"}
    lost = []
    for path in completed:
        plan = driver.plans[path]
        races = {part.name for part in plan.parts if isinstance(part, First)}
        for name, count in plan.signals():
            if name not in races:
                lost += [data for number in range(count) if (data := f"{name}:{number}") not in found.consumed]
    return lost


def match_result(plan: Plan, result: Any) -> None:
    """Check that a result has the form that the plan says."""
    assert isinstance(result, list), f"{plan.path} returned {result!r}"
    for part, value in zip(plan.parts, result, strict=True):
        what = f"{part} of {plan.path} returned {value!r}"
        match part:
            case Step() | Once():
                assert isinstance(value, str), what
            case Together():
                assert len(value) == len(part.steps) + (part.wait is not None), what
            case Signal():
                assert value == {"signal": f"{part.name}:0"}, what
            case Remind():
                assert value == [{"signal": f"{part.name}:{number}"} for number in range(part.count)], what
            case First():
                assert value in ("late", {"signal": f"{part.name}:0"}), what
            case Children():
                for child, returned in zip(part.plans, value, strict=True):
                    if not (isinstance(returned, dict) and part.on_error == "collect"):
                        match_result(child, returned)
            case Sleep() | Fail() | Die():
                assert value is None, what
            case _:
                assert_never(part)


def leftovers(server: Redis) -> list[str]:
    """Return keys of jobs that have ended, except those of dead letters, and entries of indexes."""
    found = [plain(key).decode() for key in plain(server.keys("*"))]
    dead = {key.removeprefix(keys.DEAD) for key in found if key.startswith(keys.DEAD)}
    left = [
        key
        for key in found
        for prefix in OWN_KEYS
        if key.startswith(prefix) and key.removeprefix(prefix) not in dead and plain(server.ttl(key)) == -1
    ]
    for queue in QUEUES:
        indexes = [*KeySpace(queue).levels, *(key for key in found if key.startswith(f"{queue}:suspended:"))]
        left += [key for key in indexes if plain(server.exists(key))]
    left += [key for key in (keys.ABORT, keys.CASCADES) if plain(server.exists(key))]
    return sorted(left)
