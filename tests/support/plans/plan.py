"""Random plans of jobs: what a handler does, one part after another. A plan is the payload of its job."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field

QUEUES: Final = ("plans", "deep:work")
MAX_DEPTH: Final = 3
"""Levels of jobs that wait for one another."""


class Step(BaseModel):
    """A step, which fails some times before it returns."""

    do: Literal["step"] = "step"
    name: str
    fails: int = 0
    ms: int = 0
    is_plain: bool = False


class Once(BaseModel):
    """A step with `once=True`, which returns or raises."""

    do: Literal["once"] = "once"
    name: str
    raises: bool = False
    ms: int = 0


class Together(BaseModel):
    """Steps that run at the same time, beside a wait if there is one."""

    do: Literal["together"] = "together"
    steps: list[Step]
    wait: "Signal | None" = None


class Signal(BaseModel):
    """A wait for a signal, which certainly comes. Afterwards a step cleans up if it is guarded."""

    do: Literal["signal"] = "signal"
    name: str
    release: Step | None = None


class Remind(BaseModel):
    """Waits that time out again and again until `count` signals of the name have come."""

    do: Literal["remind"] = "remind"
    name: str
    count: int
    every_ms: int


class Sleep(BaseModel):
    """A sleep."""

    do: Literal["sleep"] = "sleep"
    ms: int


class First(BaseModel):
    """A race between a signal and a sleep."""

    do: Literal["first"] = "first"
    name: str
    ms: int


class Children(BaseModel):
    """Children, awaited alone or gathered."""

    do: Literal["children"] = "children"
    plans: "list[Plan]"
    on_error: Literal["raise", "collect"] = "raise"


class Fail(BaseModel):
    """The attempt fails here, some times."""

    do: Literal["fail"] = "fail"
    name: str
    times: int = 1


class Die(BaseModel):
    """The job becomes a dead letter here: once, so that a replay passes, or always."""

    do: Literal["die"] = "die"
    name: str
    always: bool = False


Part = Annotated[
    Step | Once | Together | Signal | Remind | Sleep | First | Children | Fail | Die, Field(discriminator="do")
]


class Plan(BaseModel):
    """What one job does. `path` names it in all plans: its first job, and the place of each child."""

    path: str
    queue: str
    parts: list[Part] = []
    is_plain: bool = False
    """The handler is a plain function, which runs in a thread."""

    @property
    def dies(self) -> bool:
        """Whether the job becomes a dead letter whatever is replayed."""
        return any(
            (isinstance(part, Die) and part.always)
            or (isinstance(part, Children) and part.on_error == "raise" and any(plan.dies for plan in part.plans))
            for part in self.parts
        )

    def walk(self) -> "Iterator[Plan]":
        """Yield this plan and those of all its children."""
        yield self
        for part in self.parts:
            if isinstance(part, Children):
                for plan in part.plans:
                    yield from plan.walk()

    def signals(self) -> list[tuple[str, int]]:
        """Return the names of the signals that the job itself waits for, and how many of each."""
        found: list[tuple[str, int]] = []
        for part in self.parts:
            if isinstance(part, Together) and part.wait is not None:
                found.append((part.wait.name, 1))
            elif isinstance(part, Signal | First):
                found.append((part.name, 1))
            elif isinstance(part, Remind):
                found.append((part.name, part.count))
        return found


def random_plan(chance: random.Random, path: str, *, without: Sequence[str] = (), depth: int = 1) -> Plan:
    """Return a plan with parts of any kind.

    Args:
        chance: where it comes from.
        path: name of the plan.
        without: kinds of parts that it must not have.
        depth: level of its job, from 1.
    """
    count = chance.randint(1, 5 if depth == 1 else 3)
    plain = chance.random() < 0.15
    parts = [_random_part(chance, f"{path}.{number}", without, depth) for number in range(count)]
    if plain:
        parts = [part for part in parts if not isinstance(part, Together | First)]
    return Plan(path=path, queue=chance.choice(QUEUES), parts=parts, is_plain=plain)


def _random_part(chance: random.Random, name: str, without: Sequence[str], depth: int) -> "Part":
    makers: dict[str, tuple[int, Callable[[], Part]]] = {
        "step": (6, lambda: _step(chance, name)),
        "once": (2, lambda: Once(name=name, raises=chance.random() < 0.3, ms=chance.choice((0, 5, 30)))),
        "together": (
            2,
            lambda: Together(
                steps=[_step(chance, f"{name}.{place}") for place in range(chance.randint(2, 4))],
                wait=Signal(name=name) if "signal" not in without and chance.random() < 0.5 else None,
            ),
        ),
        "signal": (
            3,
            lambda: Signal(name=name, release=_step(chance, f"{name}.release") if chance.random() < 0.3 else None),
        ),
        "remind": (2, lambda: Remind(name=name, count=chance.randint(1, 3), every_ms=chance.choice((20, 100, 300)))),
        "sleep": (2, lambda: Sleep(ms=chance.choice((0, 10, 100, 500)))),
        "first": (2, lambda: First(name=name, ms=chance.choice((10, 100, 300)))),
        "fail": (1, lambda: Fail(name=name, times=chance.randint(1, 2))),
        "die": (1, lambda: Die(name=name, always=depth > 1 and chance.random() < 0.5)),
        "children": (4, lambda: _children(chance, name, without, depth)),
    }
    kinds = [kind for kind in makers if kind not in without and (kind != "children" or depth < MAX_DEPTH)]
    (kind,) = chance.choices(kinds, [makers[kind][0] for kind in kinds])
    return makers[kind][1]()


def _step(chance: random.Random, name: str) -> Step:
    return Step(
        name=name,
        fails=chance.choice((0, 0, 0, 0, 1)),
        ms=chance.choice((0, 0, 5, 30)),
        is_plain=chance.random() < 0.2,
    )


def _children(chance: random.Random, name: str, without: Sequence[str], depth: int) -> Children:
    count = chance.choice((1, 1, 2, 3, 5))
    plans = [random_plan(chance, f"{name}_{place}", without=without, depth=depth + 1) for place in range(count)]
    always_dies = any(plan.dies for plan in plans)
    # A parent that dies with its child whatever is replayed would end each run of the plan there.
    on_error = "collect" if always_dies or chance.random() < 0.4 else "raise"
    return Children(plans=plans, on_error=on_error)
