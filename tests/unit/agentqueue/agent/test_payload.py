"""A handler gets the value that was enqueued. Any other payload is refused when it is enqueued."""

import json
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    PrivateAttr,
    SecretBytes,
    SecretStr,
    TypeAdapter,
    computed_field,
    field_serializer,
)

from agentqueue import Agent, Context
from agentqueue.agent.payload import Payload, to_json
from agentqueue.agent.signature import payload_parameter
from agentqueue.errors import InvalidPayload, UsageError
from tests.unit.agentqueue.agent import annotated

T = TypeVar("T")


def payload_of(kind: Any) -> Payload:
    def handler(ctx: Context, value: Any) -> None: ...

    handler.__annotations__["value"] = kind
    return Payload.of(handler, payload_parameter(handler, Context))


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Leg(BaseModel):
    day: date
    price: Decimal = Decimal("0.10")


class Night(Leg):
    kind: Literal["night"] = "night"
    hotel: str = ""


class Page(BaseModel, Generic[T]):
    items: list[T]


class Everything(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    text: str
    number: int
    real: float
    exact: Decimal
    moment: datetime
    span: timedelta
    raw: bytes
    colour: Colour
    key: UUID
    words: frozenset[str]
    pair: tuple[int, str]
    by_day: dict[date, Leg]
    either: int | str | None
    legs: list[Leg | Night]
    page: Page[int]
    seats: Annotated[int, Field(alias="seatCount", gt=0)]


@dataclass
class Plain:
    text: str
    days: set[date] = field(default_factory=set)


class Typed(typing_extensions.TypedDict):
    at: datetime
    more: typing_extensions.NotRequired[Plain]


class Checked(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int

    @computed_field
    def twice(self) -> int:
        return 2 * self.a


class Wrapped(BaseModel):
    inner: Json[list[int]]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param(Checked, Checked(a=1), id="computed-field-and-extra-forbidden"),
        pytest.param(Wrapped, Wrapped(inner="[1]"), id="json-in-json"),
        pytest.param(Page[Leg], Page[Leg](items=[Leg(day=date(2026, 5, 1))]), id="generic"),
        pytest.param(Page, Page[int](items=[1]), id="generic-of-a-kind"),
        pytest.param(Typed, {"at": datetime(2026, 5, 1, tzinfo=UTC), "more": Plain("x", {date.max})}, id="typed-dict"),
        pytest.param(datetime, datetime(2026, 5, 1, 0, 0, 0, 1, ZoneInfo("Europe/Berlin")), id="zone"),
        pytest.param(Decimal, Decimal("0.1000000000000000055511151231257827"), id="decimal"),
        pytest.param(dict[int, Colour], {1: Colour.RED}, id="keys"),
        pytest.param(SecretStr, SecretStr(""), id="a-secret-that-is-empty"),
    ],
)
def test_what_comes_back_equal_is_sent(kind: Any, value: Any) -> None:
    payload = payload_of(kind)
    assert payload.load(payload.dump(value)) == value


zones = st.integers(-720, 720).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(timezones=st.none() | zones)
legs = st.builds(Leg, day=st.dates(), price=st.decimals(allow_nan=False, allow_infinity=False))
everything = st.builds(
    Everything,
    text=st.text(st.characters(exclude_categories=["Cs"])),
    number=st.integers(-(2**63), 2**64 - 1),
    real=st.floats(allow_nan=False, allow_infinity=False),
    exact=st.decimals(allow_nan=False, allow_infinity=False),
    moment=moments,
    span=st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
    raw=st.binary(),
    words=st.frozensets(st.text(st.characters(exclude_categories=["Cs"]))),
    pair=st.tuples(st.integers(-5, 5), st.just("x")),
    by_day=st.dictionaries(st.dates(), legs),
    either=st.none() | st.integers(-5, 5) | st.text(st.characters(exclude_categories=["Cs"])),
    legs=st.lists(legs | st.builds(Night, day=st.dates())),
    page=st.builds(Page[int], items=st.lists(st.integers(-5, 5))),
    seatCount=st.integers(1, 9),
)


@given(everything)
def test_whatever_a_model_holds_the_handler_gets_it_or_the_producer_an_error(value: Everything) -> None:
    payload = payload_of(Everything)
    try:
        data = payload.dump(value)
    except InvalidPayload as exc:
        assert "would reach the handler as" in str(exc)  # noqa: PT017  # either outcome is right
    else:
        assert payload.load(data) == value


class Login(BaseModel):
    user: str = "ada"
    password: SecretStr


class Nested(BaseModel):
    logins: list[Login]
    key: SecretBytes = SecretBytes(b"")


class Shown(BaseModel):
    password: SecretStr

    @field_serializer("password")
    def show(self, value: SecretStr) -> str:
        return value.get_secret_value()


class Left(BaseModel):
    a: int
    b: int = Field(default=0, exclude=True)


class Renamed(BaseModel):
    a: int = Field(serialization_alias="x")


class Hidden(BaseModel):
    a: int
    _cache: int = PrivateAttr(default=0)


class Rounded(BaseModel):
    price: Annotated[float, PlainSerializer(lambda value: round(value, 1))]


class Loose(BaseModel):
    what: Any


class Trip(BaseModel):
    leg: Leg


class Span(BaseModel):
    model_config = ConfigDict(ser_json_timedelta="float")
    raw: str | bytes


LOGIN = Login(password=SecretStr("x"))


def hidden() -> Hidden:
    made = Hidden(a=1)
    made._cache = 5
    return made


def unchecked() -> Leg:
    """Made past the checks: the day is missing."""
    given: dict[str, Any] = {"price": 1}
    return Leg.model_construct(**given)


def changed() -> Leg:
    made = Leg(day=date(2026, 5, 1))
    made.day = "soon"  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        pytest.param(Login, LOGIN, "password is a SecretStr, whose value is not written: pass a", id="secret"),
        pytest.param(Nested, Nested(logins=[LOGIN]), r"logins\[0\].password is a SecretStr", id="nested"),
        pytest.param(Nested, Nested(logins=[], key=SecretBytes(b"x")), "key is a SecretBytes", id="secret-bytes"),
        pytest.param(SecretStr, SecretStr("x"), "it is a SecretStr", id="only-a-secret"),
        pytest.param(Left, Left(a=1, b=2), "b is 2 and would reach the handler as 0", id="excluded"),
        pytest.param(Renamed, Renamed(a=1), "its own JSON is refused: a: Field required", id="alias-one-way"),
        pytest.param(Hidden, hidden(), "_cache is a private attribute, which is not written", id="private"),
        pytest.param(Rounded, Rounded(price=0.123), "price is 0.123 and would reach the handler as 0.1", id="rounded"),
        pytest.param(Loose, Loose(what=date(2026, 5, 1)), "what is a date and would reach the", id="any"),
        pytest.param(Leg, Night(day=date(2026, 5, 1)), "it is a Night and would reach .* as Leg", id="subclass"),
        pytest.param(Trip, Trip(leg=Night(day=date(2026, 5, 1))), "leg is a Night", id="subclass-inside"),
        pytest.param(Span, Span(raw=b"x"), "raw is a bytes and would reach the handler as str", id="union"),
        pytest.param(Leg, changed(), "its own JSON is refused: day: ", id="changed-since"),
        pytest.param(Leg, unchecked(), "its own JSON is refused: day: Field required", id="unchecked"),
    ],
)  # fmt: skip
def test_what_comes_back_as_another_value_is_refused(kind: Any, value: Any, says: str) -> None:
    with pytest.raises(InvalidPayload, match=f"{kind.__name__} can't be sent: {says}"):
        payload_of(kind).dump(value)


class Known(BaseModel):
    name: str = Field(validation_alias=AliasPath("names", 0))


class Doubled(BaseModel):
    count: Annotated[int, AfterValidator(lambda count: count * 2)]


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        pytest.param(Known, {"names": ["x"]}, id="alias-of-the-reader-alone"),
        pytest.param(Renamed, {"a": 1}, id="alias-of-the-writer-alone"),
        pytest.param(Left, {"a": 1, "b": 2}, id="excluded"),
        pytest.param(Rounded, {"price": 0.123}, id="rounded"),
        pytest.param(Doubled, {"count": 2}, id="a-validator-that-changes-its-own-output"),
    ],
)
def test_json_that_the_handler_takes_is_sent_as_it_is(kind: Any, raw: Any) -> None:
    payload = payload_of(kind)
    assert payload.load(payload.dump(raw)) == payload.load(raw)
    assert payload.dump(raw) == raw


def test_a_secret_in_json_is_refused_too() -> None:
    with pytest.raises(InvalidPayload, match=r"logins\[0\].password is a SecretStr"):
        payload_of(Nested).dump({"logins": [{"password": "x"}]})


class Loosely(BaseModel):
    days: Sequence[date]
    what: Any = None


LISBON = ZoneInfo("Europe/Lisbon")
TWICE = datetime(2026, 10, 25, 1, 30, tzinfo=LISBON)


@pytest.mark.parametrize("moment", [TWICE, TWICE.replace(fold=1), datetime(2026, 3, 29, 1, 30, tzinfo=LISBON)])
def test_a_moment_in_an_hour_that_its_zone_has_twice_or_never_is_sent(moment: datetime) -> None:
    for kind, value in ((datetime, moment), (dict[str, list[datetime]], {"at": [moment]})):
        payload = payload_of(kind)
        assert payload.dump(value) == json.loads(TypeAdapter(kind).dump_json(value))
    assert payload_of(datetime).load(payload_of(datetime).dump(moment)) - moment == timedelta(0)


def test_a_tuple_is_sent_where_any_sequence_may_be() -> None:
    payload = payload_of(Loosely)
    assert payload.load(payload.dump(Loosely(days=(date.max,), what=((), 1)))) == Loosely(days=[date.max], what=[[], 1])
    with pytest.raises(InvalidPayload, match=r"what\[0\] is a date and would reach"):
        payload.dump(Loosely(days=(), what=(date.max,)))
    with pytest.raises(InvalidPayload, match="what is a set and would reach"):
        payload.dump(Loosely(days=(), what={1}))


def test_a_secret_that_its_model_writes_is_sent() -> None:
    payload = payload_of(Shown)
    assert payload.dump(Shown(password=SecretStr("x"))) == {"password": "x"}
    assert payload.dump({"password": "x"}) == {"password": "x"}


def test_a_type_without_an_equality_of_its_own_is_judged_by_what_it_holds() -> None:
    @dataclass(eq=False)
    class Bare:
        text: str
        secret: SecretStr

    class Drawn(BaseModel):
        a: int
        _token: UUID = PrivateAttr(default_factory=uuid4)

    assert payload_of(Bare).dump(Bare("x", SecretStr(""))) == {"text": "x", "secret": ""}
    assert payload_of(Drawn).dump(Drawn(a=1)) == {"a": 1}
    with pytest.raises(InvalidPayload, match="secret is a SecretStr"):
        payload_of(Bare).dump(Bare("x", SecretStr("y")))


def test_numbers_that_json_does_not_have_are_left_to_the_encoder_to_name() -> None:
    assert payload_of(Loose).dump(Loose(what=2**70)) == {"what": 2**70}
    with pytest.raises(InvalidPayload, match="what is a float and would reach the handler as NoneType"):
        payload_of(Loose).dump(Loose(what=float("nan")))


class TestWithoutAnAnnotation:
    """Payloads of jobs that are enqueued by name, and checkpoints."""

    def test_models_come_back_or_are_refused(self) -> None:
        assert to_json(Checked(a=1)) == {"a": 1}
        assert to_json({"legs": [Leg(day=date(2026, 5, 1))]}) == {"legs": [{"day": "2026-05-01", "price": "0.10"}]}
        with pytest.raises(InvalidPayload, match="the payload can't be sent as a Login: password is a SecretStr"):
            to_json(Login(password=SecretStr("x")))
        with pytest.raises(InvalidPayload, match=r"the checkpoint.pages\[1\] can't be sent as a Left: b is 2"):
            to_json({"pages": [Left(a=1), Left(a=1, b=2)]}, "the checkpoint")

    def test_a_secret_is_refused_wherever_it_is(self) -> None:
        for value in (
            {"a": [SecretStr("x")]},
            Login(password=SecretStr("x")),
            Nested(logins=[], key=SecretBytes(b"x")),
        ):
            with pytest.raises(InvalidPayload, match="the result holds a secret at "):
                to_json(value, "the result", comes_back=False)
        assert to_json({"a": SecretStr("")}) == {"a": ""}
        assert to_json(Shown(password=SecretStr("x")), comes_back=False) == {"password": "x"}

    def test_a_result_is_json_for_a_reader(self) -> None:
        assert to_json(Checked(a=1), comes_back=False) == {"a": 1, "twice": 2}
        assert to_json(Left(a=1, b=2), comes_back=False) == {"a": 1}

    def test_a_dataclass_that_pydantic_can_not_read_is_written(self) -> None:
        @dataclass
        class Foreign:
            call: Callable[..., Any]
            lock: "Nowhere"  # type: ignore[name-defined]  # noqa: F821

        assert to_json(Foreign(1, 2)) == {"call": 1, "lock": 2}  # type: ignore[arg-type]


class TestAnnotations:
    def test_the_payloads_annotation_is_resolved_alone(self) -> None:
        early, plain = annotated.agent.jobs["early"], annotated.agent.jobs["plain"]
        assert (early.payload.annotation, plain.payload.annotation) == (annotated.Trip, list[annotated.Trip] | None)
        early.payload.prepare()

    def test_a_class_of_a_function_around_it_is_found(self) -> None:
        jobs = annotated.local().jobs
        assert jobs["fly"].payload.load({"day": "x"}).day == "x"
        with pytest.raises(UsageError, match=r"'leg' in local.*ahead names something that is not"):
            jobs["ahead"].payload.prepare()

    def test_one_that_only_a_type_checker_knows_is_refused_by_name(self) -> None:
        with pytest.raises(UsageError, match=r"annotation of 'day' in unknown .*not under `if TYPE_CHECKING:`"):
            annotated.agent.jobs["unknown"].payload.prepare()

    @pytest.mark.skipif("sys.version_info >= (3, 12)", reason="pydantic reads it from 3.12 on")
    def test_a_typed_dict_of_typing_is_refused_with_the_place_where_it_is_used(self) -> None:
        wish: Any = typing.TypedDict("wish", {"day": str})
        for kind in (wish, list[wish]):
            with pytest.raises(UsageError, match=r"handler \(.*payload.py:\d+\): .*import TypedDict from typing_ext"):
                payload_of(kind).prepare()

    def test_a_model_that_is_not_defined_to_its_end_is_refused_at_once(self) -> None:
        class Half(BaseModel):
            other: "Nowhere"  # type: ignore[name-defined]  # noqa: F821

        with pytest.raises(UsageError, match="can't be a payload: a type that it names is not defined"):
            payload_of(Half).prepare()


def test_a_function_that_is_a_job_of_two_agents_is_enqueued_by_its_definition() -> None:
    billing, mail = Agent("billing"), Agent("mail")

    @billing.job
    @mail.job
    @mail.job(name="again")
    async def tidy(ctx: Context) -> None: ...

    from agentqueue.agent.job_definition import job_of

    with pytest.raises(UsageError, match="tidy is the job 'again' of agent 'mail' and 'tidy' of agent 'mail' and"):
        job_of(tidy)
    assert job_of(mail.jobs["tidy"]) is mail.jobs["tidy"]
    mail.cron("* * * * *")(tidy)
    assert mail.crons[0].job in mail.jobs.values()
