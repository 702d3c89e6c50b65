from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, computed_field

from agentqueue import Agent, Context
from agentqueue.agent.payload import to_json
from agentqueue.agent.result import Result
from agentqueue.errors import InvalidPayload, UsageError
from tests.unit.agentqueue.agent import annotated


class Leg(BaseModel):
    model_config = ConfigDict(extra="forbid")
    day: date
    price: int

    @computed_field
    def total(self) -> int:
        return self.price * 2


class Trip(BaseModel):
    model_config = ConfigDict(extra="forbid")
    legs: list[Leg]


@dataclass
class Found:
    offers: list[str]


def result_of(kind: Any) -> Result:
    def handler(ctx: Context) -> None: ...

    handler.__annotations__["return"] = kind
    return Result.of(handler)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Found, Found(["a"])),
        (date, date(2026, 5, 1)),
        (dict[str, Found], {"x": Found([])}),
        (Found | None, None),
        (tuple[int, str], (1, "a")),
        (Any, {"x": [1]}),
        (object, "text"),
        (Awaitable[Found], Found(["a"])),
        (Coroutine[Any, Any, Found], Found(["a"])),
    ],
)
def test_a_result_is_read_as_the_type_that_the_handler_returns(kind: Any, value: Any) -> None:
    assert result_of(kind).load(to_json(value, "the result", comes_back=False), "it") == value


def test_without_an_annotation_it_is_json() -> None:
    def bare(ctx):  # type: ignore[no-untyped-def]
        return ctx

    assert Result.of(bare).load({"x": 1}, "it") == {"x": 1}


def test_computed_fields_are_written_and_not_read() -> None:
    trip = Trip(legs=[Leg(day=date(2026, 5, 1), price=5)])
    data = to_json(trip, "the result", comes_back=False)
    assert data["legs"][0]["total"] == 10
    assert result_of(Trip).load(data, "it") == trip
    assert data["legs"][0]["total"] == 10


def test_a_value_that_does_not_fit_is_refused_by_field() -> None:
    with pytest.raises(InvalidPayload, match=r"^the result of job 5 does not fit Found: offers: Field required"):
        result_of(Found).load({"offer": []}, "the result of job 5")
    with pytest.raises(InvalidPayload, match=r"does not fit Trip: .*legs.0.price"):
        result_of(Trip).load({"legs": [{"day": "2026-05-01", "price": "x", "total": 1}]}, "it")


def test_fields_that_no_type_of_a_union_has_are_an_error() -> None:
    class A(BaseModel):
        model_config = ConfigDict(extra="forbid")
        a: int

    with pytest.raises(InvalidPayload, match=r"A\.z: Extra inputs"):
        result_of(A | list[int]).load({"a": 1, "z": 1}, "it")


def test_a_type_that_is_not_known_or_not_readable_is_refused_before_the_wait() -> None:
    class Foreign: ...

    with pytest.raises(UsageError, match="can't be a result: use a pydantic model"):
        result_of(Foreign).prepare()

    with pytest.raises(UsageError, match=r"the return annotation of early names something .*not under `if TYPE_CHECK"):
        annotated.agent.jobs["early"].result.prepare()


def test_a_class_of_a_function_around_the_handler_is_found() -> None:
    agent = Agent("q")

    @dataclass
    class Local:
        x: int

    @agent.job
    async def local(ctx: Context) -> "Local":
        return Local(1)

    assert agent.jobs["local"].result.load({"x": 1}, "it") == Local(1)
