"""Handlers, crons, metrics and the loader, without a server."""

import asyncio
import math
from pathlib import Path
from typing import Annotated, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import Field

from agentqueue import Agent, Context, Fatal, Retry, Snooze
from agentqueue.errors import HandlerImportError, UsageError
from agentqueue.keys import Level
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.job import JobRecord
from agentqueue.model.outcomes import Cancelled, Claimed, Completed, DeadLettered, Released, Rescheduled
from agentqueue.model.schedule import Schedule
from agentqueue_worker.adapters.agents import AgentHandler, AgentRegistry, PayloadRefused, keep_ms
from agentqueue_worker.adapters.loader import load_target
from agentqueue_worker.adapters.metrics import Histogram, Metrics
from agentqueue_worker.adapters.telemetry import MAX_COMPLETION_LOGS_PER_S, MAX_REMEMBERED_KEYS, WorkerTelemetry
from agentqueue_worker.app.job import RunningJob
from agentqueue_worker.domain.verdict import CancelledOnRequest, Failed, Hopeless, Snoozed, Verdict, Yielded
from agentqueue_worker.settings import Settings
from tests.support.runtime import FakeRuntime

HOUR_MS = 3_600_000


def agent_with_crons(*expressions: str, timezone: str = "UTC") -> Agent:
    agent = Agent("q")

    @agent.job
    async def tidy(ctx: Context) -> None: ...

    for expression in expressions:
        agent.cron(expression, timezone=timezone)(tidy)
    return agent


def job_of(registry: AgentRegistry, name: str, *args: Any, started: float = 0.0) -> RunningJob:
    claimed = Claimed("j", Level.NORMAL, 1.0, b"", 0, {}, cancel=False)
    handler = registry.find(name)
    assert handler is not None
    return RunningJob(claimed, JobRecord(name, args), handler, started=started, started_ms=0)


# --- handlers


def test_the_handlers_own_options_go_over_the_settings() -> None:
    agent = Agent("q")

    @agent.job(timeout=5, attempts=9, keep_result=60, backoff={"type": "fixed", "delaySeconds": 1})
    async def own(ctx: Context) -> None: ...

    @agent.job
    async def plain(ctx: Context) -> None: ...

    registry = AgentRegistry(agent, Settings(job_timeout=30, attempts=2, result_seconds=10))
    first, second = registry.find("own"), registry.find("plain")
    assert first is not None
    assert second is not None
    assert (first.timeout, first.attempts, first.keep_ms, first.backoff.type) == (5.0, 9, 60_000, "fixed")
    assert (second.timeout, second.attempts, second.keep_ms, second.backoff.type) == (30, 2, 10_000, "exponential")
    assert registry.find("none") is None
    assert keep_ms(math.inf) == -1


def grouped(*members: BaseException) -> BaseException:
    return BaseExceptionGroup("unhandled errors in a TaskGroup", members)


class SaysItIsFatal(Exception):
    """It says that it is a Fatal, and is none."""

    __class__ = Fatal  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("exc", "draining", "verdict"),
    [
        pytest.param(ValueError(), False, Failed(), id="an-error"),
        pytest.param(asyncio.CancelledError(), False, Failed(), id="cancelled-by-itself"),
        pytest.param(Retry(after=5), False, Failed(5.0), id="retry"),
        pytest.param(Retry(), False, Failed(None), id="retry-with-backoff"),
        pytest.param(Retry(), True, Yielded(None), id="retry-while-draining-hands-back"),
        pytest.param(Fatal("x"), False, Hopeless(DeadLetterReason.FATAL), id="fatal"),
        pytest.param(PayloadRefused("x"), False, Hopeless(DeadLetterReason.INVALID_PAYLOAD), id="payload"),
        pytest.param(grouped(Fatal(), grouped(Fatal())), False, Hopeless(DeadLetterReason.FATAL), id="group-of-fatal"),
        pytest.param(grouped(Fatal(), ValueError()), False, Failed(), id="group-of-fatal-and-another"),
        pytest.param(grouped(Fatal(), Retry(after=2)), False, Failed(2.0), id="group-of-fatal-and-retry"),
        pytest.param(grouped(Retry(after=2), grouped(Retry(after=5))), False, Failed(5.0), id="the-longest-delay"),
        pytest.param(grouped(Retry(), Retry()), False, Failed(), id="group-of-retries-with-backoff"),
        pytest.param(grouped(Retry(after=1)), True, Yielded(1.0), id="group-of-retries-while-draining"),
        pytest.param(grouped(Retry(after=1), ValueError()), True, Failed(1.0), id="mixed-group-while-draining"),
        pytest.param(grouped(asyncio.CancelledError()), False, Failed(), id="group-of-cancelled"),
        pytest.param(Snooze("busy", after=5), False, Snoozed(5.0, "busy"), id="snooze"),
        pytest.param(Snooze(after=5), True, Snoozed(5.0, "again in 5 s"), id="snooze-while-draining"),
        pytest.param(
            grouped(Snooze("a", after=1), Snooze("b", after=9)), False, Snoozed(9.0, "b"), id="longest-snooze"
        ),
        pytest.param(grouped(Snooze(after=1), ValueError()), False, Failed(), id="group-of-snooze-and-another"),
        pytest.param(grouped(Snooze(after=1), Retry(after=2)), False, Failed(2.0), id="group-of-snooze-and-retry"),
        pytest.param(SaysItIsFatal(), False, Failed(), id="what-says-that-it-is-fatal"),
    ],
)
def test_how_an_exception_counts(exc: BaseException, draining: bool, verdict: Verdict) -> None:
    registry = AgentRegistry(agent_with_crons(), Settings())
    job = job_of(registry, "tidy")
    assert isinstance(job.handler, AgentHandler)
    job.handler.runtime = FakeRuntime(draining=draining)
    assert job.handler.judge(exc, job) == verdict
    assert verdict != CancelledOnRequest()


@pytest.mark.parametrize(
    ("args", "kwargs", "words"), [((1, 2), {}, "one payload"), ((), {"a": 1}, "one payload"), ((1,), {}, "takes no")]
)
def test_arguments_that_are_not_one_payload_are_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any], words: str
) -> None:
    agent = Agent("q")

    @agent.job
    async def bare(ctx: Context) -> None: ...

    @agent.job
    async def one(ctx: Context, n: int) -> None: ...

    registry = AgentRegistry(agent, Settings())
    job = job_of(registry, "bare" if words == "takes no" else "one", *args)
    job.record = JobRecord(job.record.name, args, kwargs)
    assert isinstance(job.handler, AgentHandler)
    job.handler.runtime = FakeRuntime()
    with pytest.raises(PayloadRefused, match=words):
        job.handler.call(job)


async def test_shutdown_functions_run_in_reverse_and_each_though_one_fails() -> None:
    agent, order = Agent("q"), []

    @agent.job
    async def job(ctx: Context) -> None: ...

    @agent.shutdown
    async def first(ctx: Any) -> None:
        order.append("first")

    @agent.shutdown
    def second(ctx: Any) -> None:
        order.append("second")
        raise RuntimeError("no")

    registry = AgentRegistry(agent, Settings())
    await registry.stop()
    assert order == [], "what was never opened is not closed"
    await registry.start(FakeRuntime())
    await registry.stop()
    await registry.stop()
    assert order == ["second", "first"]


# --- what is registered


def test_an_agent_registers_its_jobs_with_their_schemas_and_its_crons() -> None:
    agent = agent_with_crons("0 9 * * *", timezone="Europe/Berlin")

    @agent.job
    async def greet(ctx: Context, name: str) -> None: ...

    code = AgentRegistry(agent, Settings()).code
    assert code.jobs == {"tidy": None, "greet": {"type": "string"}}
    assert code.crons == [Schedule("tidy", cron="0 9 * * *", job="tidy", timezone="Europe/Berlin")]


def test_a_schema_that_is_too_large_is_left_out() -> None:
    agent = Agent("q")

    @agent.job
    async def choose(ctx: Context, option: Annotated[str, Field(description="x" * 70_000)]) -> None: ...

    assert AgentRegistry(agent, Settings()).code.jobs == {"choose": None}


@pytest.mark.parametrize(
    ("expression", "timezone", "words"),
    [
        ("61 * * * *", "UTC", "five fields"),
        ("nonsense", "UTC", "five fields"),
        ("0 0 31 2 *", "UTC", "ever comes"),
        ("* * * * *", "Mars/Olympus", "IANA"),
    ],
)
def test_a_cron_that_cant_be_is_refused_where_the_worker_starts(expression: str, timezone: str, words: str) -> None:
    with pytest.raises(HandlerImportError, match=words):
        AgentRegistry(agent_with_crons(expression, timezone=timezone), Settings())


# --- metrics and logs


def test_a_histograms_buckets_are_cumulative_and_bounds_inclusive() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(value)
    assert histogram.buckets() == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert histogram.total == 12.0


def test_every_kind_of_end_is_counted_by_its_outcome() -> None:
    registry = AgentRegistry(agent_with_crons(), Settings())
    metrics = Metrics("q", "agent")
    level = Level.NORMAL
    for outcome in (
        Completed("j", level, b"", 0, 1),
        Rescheduled("j", level, 1),
        DeadLettered("j", level, b"", 0, "", b""),
        Cancelled("j", level, b"", 0),
        Released("j", level),
        None,
    ):
        metrics.ended(job_of(registry, "tidy"), outcome, 0.1)
    prometheus = CollectorRegistry()
    prometheus.register(metrics)
    text = generate_latest(prometheus).decode()
    for word in ("completed", "retried", "dead", "cancelled", "released", "lost"):
        assert f'agentqueue_jobs_total{{job_name="tidy",outcome="{word}",queue="q"}} 1.0' in text
    assert 'agentqueue_job_duration_seconds_count{job_name="tidy",queue="q"} 6.0' in text


def test_every_counter_is_shown_as_0_before_it_counts() -> None:
    metrics = Metrics("q", "agent")
    metrics.expect(AgentRegistry(agent_with_crons(), Settings()).names)
    before = {sample.name + str(sample.labels): sample.value for it in metrics.collect() for sample in it.samples}
    assert set(before.values()) == {0.0}
    registry = AgentRegistry(agent_with_crons(), Settings())
    for outcome in (Completed("j", Level.NORMAL, b"", 0, 1), Rescheduled("j", Level.NORMAL, 1), None):
        metrics.ended(job_of(registry, "tidy"), outcome, 0.1)
    after = {sample.name + str(sample.labels) for it in metrics.collect() for sample in it.samples}
    assert after == before.keys()


def test_successes_are_logged_up_to_a_budget_and_the_rest_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    registry, telemetry = AgentRegistry(agent_with_crons(), Settings()), WorkerTelemetry(Metrics("q", "a"))
    for _ in range(MAX_COMPLETION_LOGS_PER_S + 30):
        telemetry.ended(job_of(registry, "tidy", started=5.0), Completed("j", Level.NORMAL, b"", 0, 1), 0.1, None)
    telemetry.ended(job_of(registry, "tidy", started=7.0), Completed("j", Level.NORMAL, b"", 0, 1), 0.1, None)
    out = capsys.readouterr().out
    assert out.count("job_completed") == MAX_COMPLETION_LOGS_PER_S + 1
    assert "jobs=30" in out


def test_a_lasting_trouble_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = WorkerTelemetry(Metrics("q", "a"))
    for _ in range(5):
        telemetry.redis_failed(ConnectionError("refused"))
        telemetry.redis_full(MemoryError("full"))
        telemetry.renewed(None, 0.1)
    telemetry.redis_answered()
    telemetry.redis_answered()
    telemetry.lost(["a", "b"])
    out = capsys.readouterr().out
    assert [out.count(word) for word in ("redis_unavailable", "redis_recovered", "blocked", "outcomes_dropped")] == [
        1,
        1,
        1,
        1,
    ]
    metrics = telemetry.metrics
    assert (metrics.redis_errors, metrics.redis_full_refusals) == (5, 5)
    assert (metrics.renewals_failed, metrics.lost_outcomes) == (5, 2)


def test_wrong_type_keys_are_logged_now_and_then_and_forgotten(
    capsys: pytest.CaptureFixture[str],
) -> None:
    telemetry = WorkerTelemetry(Metrics("q", "a"))
    for _ in range(3):
        telemetry.wrong_type_keys([("q:low", "string")])
    telemetry.wrong_type_keys([(f"aq:meta:{n}", "list") for n in range(MAX_REMEMBERED_KEYS)])
    out = capsys.readouterr().out
    assert (out.count("key=q:low"), out.count("type=list")) == (1, MAX_REMEMBERED_KEYS)
    assert telemetry.metrics.redis_errors == 4
    assert len(telemetry._reported_wrong_types) <= MAX_REMEMBERED_KEYS


# --- loader


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "shop_for_loader"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text("from agentqueue import Agent\nagent = Agent('one')\nclass WorkerSettings: ...\n")
    (folder / "two.py").write_text("from agentqueue import Agent\na, b = Agent('a'), Agent('b')\n")
    (folder / "none.py").write_text("x = 1\n")
    (folder / "broken.py").write_text("import not_installed_at_all\n")
    return tmp_path


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("shop_for_loader.one:agent", "Agent"),
        ("shop_for_loader.one.agent", "Agent"),
        ("shop_for_loader.one", "Agent"),
        ("shop_for_loader.one:WorkerSettings", "type"),
        ("shop_for_loader.one.WorkerSettings", "type"),
    ],
)
def test_ways_to_name_a_handler(package: Path, target: str, found: str) -> None:
    assert type(load_target(target, folder=str(package))).__name__ == found


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("shop_for_loader.two", "several agents: write shop_for_loader.two:a"),
        ("shop_for_loader.two:c", "its agents are a, b"),
        ("shop_for_loader.none", "has no Agent"),
        ("shop_for_loader.one:agnet", "did you mean 'agent'"),
        ("shop_for_loader.broken", "not_installed_at_all"),
        ("shop_for_loader.broken:agent", "does not import: ModuleNotFoundError"),
        ("shop_for_loader.three:agent", "no module 'shop_for_loader.three'"),
        ("nowhere_at_all", "no module 'nowhere_at_all'"),
        ("nowhere_at_all.agent", "no module 'nowhere_at_all'"),
    ],
)
def test_a_handler_that_cant_be_found_is_explained(package: Path, target: str, words: str) -> None:
    with pytest.raises(HandlerImportError, match=words.replace("'", ".")):
        load_target(target, folder=str(package))


def test_usage_errors_are_value_errors_to_python() -> None:
    assert issubclass(UsageError, ValueError)
