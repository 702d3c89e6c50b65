"""Definitions, payloads and contexts, which authors of handlers import."""

import asyncio
import contextlib
import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from agentqueue import Agent, Backoff, Context, Retry, Snooze, declare
from agentqueue.agent.definition import is_async
from agentqueue.agent.durable import Durable
from agentqueue.agent.job_definition import JobDefinition, job_of
from agentqueue.agent.limit import LimitCalls
from agentqueue.agent.payload import to_json
from agentqueue.errors import InvalidName, InvalidPayload, UsageError
from agentqueue.keys import Level
from agentqueue.model.attempts import Progress
from agentqueue.model.job import JobRecord, child_id, decode_job
from agentqueue.model.new_job import NO_PAYLOAD
from agentqueue.model.retry_policy import check_attempts, seconds
from agentqueue.model.schedule import Missed
from tests.support.nasty import RudeText


class Trip(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    day: date
    seat_count: int = Field(1, alias="seatCount")


@dataclass
class Quote:
    price: float


agent = Agent("flight-search")


@agent.job(timeout=60, attempts=3)
async def search_flights(ctx: Context, trip: Trip) -> None: ...


def definition(func: Callable[..., Any]) -> JobDefinition:
    agent = Agent("q")
    agent.job(func)
    (found,) = agent.jobs.values()
    assert found is not None
    return found


# --- defining jobs


def test_a_job_is_named_by_its_function_with_dashes() -> None:
    job = job_of(search_flights)
    assert isinstance(job, JobDefinition)
    assert (job.name, job.queue, job.timeout, job.attempts, job.is_async) == (
        "search-flights",
        "flight-search",
        60,
        3,
        True,
    )
    assert agent.jobs == {"search-flights": job}
    assert repr(agent) == "Agent('flight-search', jobs=['search-flights'])"


def test_a_decorated_function_stays_as_it_is() -> None:
    def double(ctx: Any, n: int) -> int:
        return 2 * n

    assert Agent("q").job(double) is double
    assert double(None, 4) == 8


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": 0}, "from 0.001"),
        ({"timeout": -1}, "`timeout` must be a number of seconds from 0.001"),
        ({"timeout": "60"}, "number of seconds"),
        ({"attempts": 0}, "1 to 1000"),
        ({"attempts": 2.5}, "1 to 1000"),
        ({"backoff": {"delay": 5}}, "`backoff` has no 'delay'; it has type, delaySeconds"),
        ({"backoff": {"type": "linear"}}, "exponential or fixed"),
        ({"backoff": {"jitter": 2}}, "`backoff.jitter` must be a number from 0 to 1, not 2"),
        ({"keep_result": float("nan")}, "number of seconds"),
        ({"keep_result": 1e300}, "from 0 to 315360000"),
        ({"timeout": timedelta(days=4_000)}, "to 315360000"),
        ({"backoff": {"delaySeconds": float("inf")}}, "from 0 to 315360000"),
        ({"backoff": {"maxDelaySeconds": float("inf")}}, "from 0 to 315360000"),
        ({"name": "a b"}, "letters, digits"),
    ],
)
def test_a_bad_option_is_refused_where_the_job_is_defined(options: dict[str, Any], error: str) -> None:
    with pytest.raises(UsageError, match=error):

        @Agent("q").job(**options)
        async def job(ctx: Context) -> None: ...


def test_two_jobs_of_one_name_are_refused() -> None:
    own = Agent("q")
    own.job(name="a")(lambda ctx: None)
    with pytest.raises(UsageError, match="has a job 'a' already"):
        own.job(name="a")(lambda ctx: None)


def _generator(ctx: Any) -> Any:
    yield 1


async def _async_generator(ctx: Any) -> Any:
    yield 1


class _Callable:
    async def __call__(self, ctx: Any, n: int) -> None: ...

    def method(self, ctx: Any) -> None: ...


@pytest.mark.parametrize(
    ("func", "error"),
    [
        (lambda: None, "must take"),
        (lambda ctx, a, b: None, "must take"),
        (lambda ctx, a, *, key: None, "must take"),
        (_generator, "yields"),
        (_async_generator, "yields"),
    ],
)
def test_a_function_that_is_no_handler_is_refused(func: Callable[..., Any], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        Agent("q").job(name="x")(func)


@pytest.mark.parametrize(
    ("func", "error"),
    [
        (contextlib.contextmanager(_generator), "yields"),
        (contextlib.asynccontextmanager(_async_generator), "yields"),
        (functools.partial(_generator), "yields"),
        (classmethod(lambda cls, ctx: None), "can't be called"),
        (functools.partialmethod(_generator), "can't be called"),
        (5, "can't be called"),
        (max, "has no signature"),
    ],
)
def test_a_callable_that_is_no_handler_is_refused(func: Any, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        Agent("q").job(name="x")(func)


@pytest.mark.parametrize("func", [_generator, _async_generator, contextlib.asynccontextmanager(_async_generator), 5])
def test_a_hook_whose_body_would_not_run_is_refused(func: Any) -> None:
    own = Agent("q")
    for register in (own.startup, own.shutdown):
        with pytest.raises(UsageError, match=r"yields|can't be called"):
            register(func)
    assert own.on_startup == own.on_shutdown == []


@pytest.mark.parametrize(
    "func", [lambda: None, lambda ctx, more: None, lambda *, ctx: None], ids=["none", "two", "keyword"]
)
def test_a_hook_that_can_not_take_the_context_is_refused(func: Any) -> None:
    agent = Agent("q")
    for register in (agent.startup, agent.shutdown):
        with pytest.raises(UsageError, match="must take one argument, the worker's context"):
            register(func)
    assert (agent.on_startup, agent.on_shutdown) == ([], [])


def test_a_hook_may_take_more_than_the_context_if_it_need_not() -> None:
    agent = Agent("q")
    agent.startup(lambda ctx, more=1: None)
    agent.startup(lambda *args: None)
    agent.startup(print)
    assert len(agent.on_startup) == 3


def test_what_runs_in_a_thread() -> None:
    async def coroutine(ctx: Any) -> None: ...

    assert is_async(coroutine)
    assert is_async(functools.partial(coroutine))
    assert is_async(_Callable())
    assert not is_async(lambda ctx: None)


def test_objects_partials_and_methods_may_be_handlers() -> None:
    own, called = Agent("q"), _Callable()
    own.job(name="object")(called)
    own.job(name="partial")(functools.partial(called.__call__, n=1))
    own.job(called.method)
    with pytest.raises(InvalidName):
        own.job(functools.partial(called.method))
    assert list(own.jobs) == ["object", "partial", "method"]
    with pytest.raises(InvalidPayload, match="int refuses"):
        own.jobs["object"].payload.load("x")
    assert (job_of(called), job_of(called.method)) == (own.jobs["object"], None)


def test_queues_and_names_outside_the_alphabet_are_refused() -> None:
    with pytest.raises(InvalidName):
        Agent("a b")
    assert Agent("name", queue="eu:name").queue == "eu:name"


def test_a_cron_makes_a_job_or_takes_one() -> None:
    own = Agent("q")

    @own.cron("0 9 * * *", timezone="Europe/Berlin")
    @own.cron("0 17 * * *", name="report", attempts=1)
    async def daily(ctx: Context) -> None: ...

    assert [(cron.job.name, cron.expression, cron.timezone) for cron in own.crons] == [
        ("report", "0 17 * * *", "UTC"),
        ("report", "0 9 * * *", "Europe/Berlin"),
    ]
    assert [cron.name for cron in own.crons] == ["report", "report-2"]


def test_a_cron_has_the_name_and_the_rule_for_missed_ticks_that_it_is_given() -> None:
    own = Agent("q")

    @own.cron("0 9 * * *", schedule="morning", missed="all")
    async def daily(ctx: Context) -> None: ...

    own.cron("0 12 * * *")(daily)
    assert [(cron.name, cron.missed) for cron in own.crons] == [("morning", Missed.ALL), ("daily", Missed.ONE)]
    with pytest.raises(UsageError, match=r"agent 'q' has a schedule 'morning' already; give one of them schedule="):
        own.cron("0 13 * * *", schedule="morning")(daily)
    with pytest.raises(UsageError, match="must have 1 to 64 characters"):
        own.cron("0 13 * * *", schedule="n" * 65)(daily)
    with pytest.raises(UsageError, match="a cron's missed is 'some'; write skip, one, all"):
        own.cron("0 13 * * *", missed="some")  # type: ignore[arg-type]
    assert len(own.crons) == 2


@pytest.mark.parametrize(("value", "out"), [(5, 5.0), (0.5, 0.5), (timedelta(minutes=2), 120.0)])
def test_durations(value: Any, out: float) -> None:
    assert seconds(value, "timeout") == out


def test_retry_has_a_delay() -> None:
    assert (Retry(after=timedelta(seconds=5)).after, str(Retry(after=5)), str(Retry())) == (
        5.0,
        "try again after 5 s",
        "try again",
    )
    assert check_attempts(None) is None


@pytest.mark.parametrize("after", [float("inf"), float("nan"), 1e300, "5"])
def test_a_retry_with_an_impossible_delay_fails_in_the_handler_not_in_the_worker(after: Any) -> None:
    with pytest.raises(UsageError, match="from 0 to 315360000"):
        Retry(after=after)


@pytest.mark.parametrize(
    ("after", "waits"), [(5, 5), (timedelta(minutes=1), 60), (Decimal("1.5"), 1.5), (0, 0.1), (-3, 0.1)]
)
def test_a_snooze_lasts_at_least_a_tenth_of_a_second(after: Any, waits: float) -> None:
    assert Snooze(after=after).after == waits
    assert (str(Snooze(after=after)), str(Snooze("busy", after=after))) == (f"again in {waits:g} s", "busy")
    assert Snooze(after=timedelta(seconds=-1)).after == 0.1


@pytest.mark.parametrize("after", [float("inf"), True, "5", None])
def test_a_snooze_without_a_possible_end_is_refused(after: Any) -> None:
    with pytest.raises(UsageError, match="`after` must be a number of seconds"):
        Snooze(after=after)


def test_a_result_may_stay_for_ever_and_a_job_run_without_a_limit() -> None:
    @Agent("q").job(keep_result=float("inf"), timeout=float("inf"))
    async def endless(ctx: Context) -> None: ...

    job = job_of(endless)
    assert isinstance(job, JobDefinition)
    assert job.keep_result == job.timeout == float("inf")


def test_a_backoff_in_the_resources_words() -> None:
    base = Backoff("fixed", delay=9)
    assert Backoff.parse({"delaySeconds": 1}, base) == Backoff("fixed", delay=1)
    assert Backoff.parse(base) is base


def test_a_delay_over_the_usual_cap_lifts_it() -> None:
    assert Backoff.parse({"delaySeconds": 3600}).max_delay == 3600
    assert Backoff.parse({"delaySeconds": 3600, "maxDelaySeconds": 60}).max_delay == 60


@pytest.mark.parametrize("given", [30, 30.0, timedelta(seconds=30)])
def test_a_backoff_that_is_a_duration_is_a_fixed_one(given: float | timedelta) -> None:
    @Agent("q").job(backoff=given)
    async def patient(ctx: Context) -> None: ...

    job = job_of(patient)
    assert isinstance(job, JobDefinition)
    assert job.backoff == Backoff("fixed", delay=30)


def test_a_backoff_that_is_none_of_these_is_refused_where_it_is_given() -> None:
    wrong: Any = "30"
    with pytest.raises(UsageError, match=r"`backoff` must be a number of seconds .* not '30'"):

        @Agent("q").job(backoff=wrong)
        async def wordy(ctx: Context) -> None: ...


# --- payloads


def test_a_payload_is_checked_at_enqueue_and_written_by_its_aliases() -> None:
    job = job_of(search_flights)
    assert job is not None
    wire = {"day": "2026-05-01", "seatCount": 2}
    assert job.payload.dump(Trip(day=date(2026, 5, 1), seat_count=2)) == wire
    assert job.payload.dump(wire) == wire
    assert job.payload.load(wire) == Trip(day=date(2026, 5, 1), seat_count=2)
    with pytest.raises(InvalidPayload, match=r"Trip refuses the payload: day: .*; seatCount: "):
        job.payload.dump({"day": "soon", "seatCount": "two"})
    schema = job.payload.schema()
    assert schema is not None
    assert set(schema["properties"]) == {"day", "seatCount"}


def test_payloads_may_be_dataclasses_and_plain_types() -> None:
    def quotes(ctx: Any, quotes: list[Quote]) -> None: ...

    def positive(ctx: Any, n: Annotated[int, Field(gt=0)]) -> None: ...

    def anything(ctx: Any, data: Any) -> None: ...

    def bare(ctx: Any, data) -> None: ...  # type: ignore[no-untyped-def]

    assert definition(quotes).payload.load([{"price": 1}]) == [Quote(1.0)]
    assert definition(quotes).payload.dump([Quote(1.0)]) == [{"price": 1.0}]
    with pytest.raises(InvalidPayload, match="greater than 0"):
        definition(positive).payload.load(0)
    for func in (anything, bare):
        job = definition(func)
        assert job.payload.load({"x": 1}) == {"x": 1}
        assert job.payload.dump(Quote(1.0)) == {"price": 1.0}
        assert job.payload.schema() is None
        job.payload.prepare()


def test_a_handler_without_a_payload_takes_none() -> None:
    job = job_of(Agent("q").job(name="x")(lambda ctx: None))
    assert job is not None
    assert (job.payload.annotation, job.payload.schema()) == (None, None)
    assert job.payload.dump(None) is job.payload.dump() is NO_PAYLOAD
    job.payload.prepare()
    with pytest.raises(InvalidPayload, match="takes no payload"):
        job.payload.dump(1)


def test_of_many_problems_the_first_are_listed() -> None:
    def numbers(ctx: Any, values: list[int]) -> None: ...

    with pytest.raises(InvalidPayload, match=r"\(and 5 more\)"):
        definition(numbers).payload.load(["x"] * 15)


def test_an_annotation_that_cant_be_a_payload_is_explained() -> None:
    def unknown(ctx: Any, x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def odd(ctx: Any, x: threading.Lock) -> None: ...

    with pytest.raises(UsageError, match="define the type at module level"):
        definition(unknown).payload.prepare()
    with pytest.raises(UsageError, match="can't be a payload"):
        definition(odd).payload.prepare()


def test_a_value_that_json_cannot_represent_is_refused() -> None:
    assert to_json({"a": date(2026, 5, 1)}) == {"a": "2026-05-01"}
    with pytest.raises(InvalidPayload, match="not JSON"):
        to_json(threading.Lock())
    with pytest.raises(InvalidPayload, match="the thing"):
        to_json(object(), "the thing")


# --- contexts


class FakeRuntime:
    queue, declared_queue, draining = "eu:flight-search", "flight-search", False

    def __init__(self) -> None:
        self.state = SimpleNamespace(rate=7)
        self.thread = threading.get_ident()
        self.loop = asyncio.get_running_loop()
        self.told: list[Any] = []

    def progress(self, job_id: str, progress: Progress) -> None:
        self.told.append((job_id, progress.percent, progress.message))

    async def checkpoint(self, job_id: str, raw: bytes, *, strict: bool) -> None:
        self.told.append((job_id, raw))

    def limits(self, job_id: str) -> LimitCalls:
        raise AssertionError("the job makes no call under a limit")

    @property
    def client(self) -> str:
        return "the worker's client"

    def durable(self, job_id: str) -> Durable:
        raise AssertionError(f"{job_id} makes no durable calls")


@pytest.fixture
async def runtime() -> FakeRuntime:
    return FakeRuntime()


def context(runtime: FakeRuntime, **fields: Any) -> Context:
    record = JobRecord("search-flights", tags=("acme",), tenant="t", trace="00-1-2-01", enqueued_ms=5, nonce="drawn")
    given: dict[str, Any] = {"id": "job-1", "attempt": 2, "delivery": 3} | fields
    return Context(runtime, record, **given)


async def test_a_context_describes_its_job(runtime: FakeRuntime) -> None:
    ctx = context(runtime)
    assert (ctx.id, ctx.attempt, ctx.delivery, ctx.queue, ctx.name) == (
        "job-1",
        2,
        3,
        "eu:flight-search",
        "search-flights",
    )
    assert (list(ctx.tags), ctx.state.rate, ctx.resume, ctx.should_yield) == (["acme"], 7, None, False)
    ctx.stopping = True
    assert ctx.should_yield
    assert context(runtime, resume=b'{"page":3}').resume == {"page": 3}
    assert ctx.log is ctx.log


async def test_progress_and_checkpoint_reach_the_worker_from_the_loop_and_from_threads(runtime: FakeRuntime) -> None:
    ctx = context(runtime)
    await ctx.progress(10, "looking")
    await ctx.checkpoint({"page": 1})

    def blocking() -> None:
        ctx.progress(20)
        ctx.checkpoint(Quote(1.5))

    await asyncio.to_thread(blocking)
    assert runtime.told == [
        ("job-1", 10, "looking"),
        ("job-1", b'{"page":1}'),
        ("job-1", 20, None),
        ("job-1", b'{"price":1.5}'),
    ]
    assert ctx.last_checkpoint == b'{"price":1.5}'
    assert ctx.last_progress is not None
    assert ctx.last_progress.percent == 20


class Scalar:
    """An integer like numpy's."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Half:
    """A number like numpy's float32."""

    def __float__(self) -> float:
        return 0.5


class Many:
    """A number like an array of several elements."""

    def __float__(self) -> float:
        raise TypeError("only length-1 arrays can be converted to Python scalars")


class float64(float):  # noqa: N801  # numpy's name
    """numpy's float64 is one."""


@pytest.mark.parametrize(
    ("percent", "seen"),
    [
        pytest.param(sum([100 / 6] * 6), 100, id="a-sum-of-floats"),
        pytest.param(-1, 0, id="below"),
        pytest.param(float("inf"), 100, id="infinite"),
        pytest.param(float("-inf"), 0, id="minus-infinite"),
        pytest.param(float("nan"), 7, id="nan-leaves-it"),
        pytest.param(10**400, 100, id="large"),
        pytest.param(Decimal("12.5"), 12.5, id="decimal"),
        pytest.param(Decimal("1e400"), 100, id="large-decimal"),
        pytest.param(Decimal("nan"), 7, id="decimal-nan"),
        pytest.param(Fraction(1, 4), 0.25, id="fraction"),
        pytest.param(Fraction(-(10**400)), 0, id="large-fraction"),
        pytest.param(Scalar(50), 50, id="index"),
        pytest.param(Half(), 0.5, id="float"),
        pytest.param(float64(33.5), 33.5, id="float-subclass"),
    ],
)
async def test_progress_is_any_number_cut_to_0_to_100(runtime: FakeRuntime, percent: Any, seen: float) -> None:
    ctx = context(runtime)
    ctx.progress(7)
    ctx.progress(percent)
    assert ctx.last_progress is not None
    assert ctx.last_progress.percent == seen
    assert type(ctx.last_progress.percent) in (int, float)


async def test_a_first_progress_of_nan_is_0(runtime: FakeRuntime) -> None:
    ctx = context(runtime)
    ctx.progress(math.nan, RudeText("a note"))
    assert ctx.last_progress is not None
    assert (ctx.last_progress.percent, ctx.last_progress.message) == (0, "a note")


@pytest.mark.parametrize("percent", [True, "50", None, Many(), 1j, Decimal("snan")])
async def test_progress_that_is_no_number_is_refused(runtime: FakeRuntime, percent: Any) -> None:
    with pytest.raises(UsageError, match="0 to 100"):
        context(runtime).progress(percent)


@pytest.mark.parametrize(
    ("after", "waits"),
    [
        (Decimal("1.5"), 1.5),
        (Fraction(1, 2), 0.5),
        (Scalar(3), 3),
        (float64(2), 2),
        (-0.001, 0),
        (timedelta(seconds=-5), 0),
        (timedelta(seconds=5), 5),
    ],
)
def test_a_retrys_delay_is_any_number_and_one_in_the_past_is_none(after: Any, waits: float) -> None:
    assert Retry(after=after).after == waits
    assert Retry(after=after).args == (f"try again after {waits:g} s",)


@pytest.mark.parametrize("after", [True, "5", math.nan, math.inf, 1e12, Many()])
def test_a_retrys_delay_that_cant_be_is_refused(after: Any) -> None:
    with pytest.raises(UsageError, match="`after` must be a number of seconds"):
        Retry(after=after)


async def test_a_checkpoints_numbers_may_be_any_librarys(runtime: FakeRuntime) -> None:
    ctx = context(runtime)
    await ctx.checkpoint({"done": Scalar(3), "mean": float64(2.5)})
    assert ctx.last_checkpoint == b'{"done":3,"mean":2.5}'
    with pytest.raises(InvalidPayload, match="Many"):
        ctx.checkpoint({"all": Many()})


async def test_children_are_collected_with_ids_that_a_rerun_makes_again(runtime: FakeRuntime) -> None:
    ctx = context(runtime)
    first = ctx.enqueue(search_flights, Trip(day=date(2026, 5, 1)), priority="high", delay=2)
    second = ctx.enqueue(("mail", "send"), {"to": "x"}, tenant="other")
    assert (first, second) == (child_id("job-1", "5:drawn", 0), child_id("job-1", "5:drawn", 1))
    assert context(runtime, attempt=3).enqueue(search_flights, Trip(day=date(2026, 5, 1))) == first
    one, two = ctx.children
    assert (one.queue, one.level, one.delay_ms) == ("eu:flight-search", Level.HIGH, 2_000)
    record = decode_job(one.record)
    assert (record.parent, record.tenant, record.trace) == ("job-1", "t", "00-1-2-01")
    assert record.args == [{"day": "2026-05-01", "seatCount": 1}]
    assert (two.queue, decode_job(two.record).tenant) == ("mail", "other")


async def test_a_declared_job_of_another_program_may_be_a_child(runtime: FakeRuntime) -> None:
    ctx = context(runtime)
    ctx.enqueue(declare("mail", "send", Quote), Quote(1.0))
    (child,) = ctx.children
    record = decode_job(child.record)
    assert (child.queue, record.name, record.args) == ("mail", "send", [{"price": 1.0}])


async def test_what_cant_be_a_child_is_refused(runtime: FakeRuntime) -> None:
    ctx = context(runtime)
    with pytest.raises(UsageError, match="is not a job"):
        ctx.enqueue("mail")  # type: ignore[call-overload]
    for clients_way in (("mail", "send"), ("mail", "send", {"to": "x"})):
        with pytest.raises(UsageError, match=r'as a tuple, such as \("queue", "job"\)'):
            ctx.enqueue(*clients_way)
    with pytest.raises(UsageError, match="takes one payload"):
        ctx.enqueue(("mail", "send"), 1, 2)  # type: ignore[call-overload]
    with pytest.raises(InvalidName):
        ctx.enqueue(("a b", "send"))
    with pytest.raises(UsageError, match="has no option 'prio'"):
        ctx.enqueue(("mail", "send"), prio=1)  # type: ignore[call-overload]
    big = "x" * 900_000
    for _ in range(3):
        ctx.enqueue(("mail", "send"), big)
    with pytest.raises(UsageError, match="3 MiB"):
        ctx.enqueue(("mail", "send"), big)
    many = context(runtime)
    for _ in range(1_000):
        many.enqueue(("mail", "send"))
    with pytest.raises(UsageError, match="more than 1,000"):
        many.enqueue(("mail", "send"))


@pytest.mark.parametrize("given", [5, None, b"0 3 * * *", print])
def test_a_cron_that_is_no_text_is_refused_where_it_is_declared(given: Any) -> None:
    agent = Agent("q")
    with pytest.raises(UsageError, match="a cron's expression must be a text"):
        agent.cron(given)
    with pytest.raises(UsageError, match="a cron's time zone must be a text"):
        agent.cron("0 3 * * *", timezone=given)
    assert agent.crons == []
