"""Settings that a worker reads from its environment."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import StrEnum
from typing import Any

import pytest

from agentqueue.errors import UsageError
from agentqueue.model.limits import Limit
from agentqueue.model.retry_policy import Backoff
from agentqueue.service import environment as env
from agentqueue.spec import AgentQueue, ResolvedAgent, resolve
from agentqueue.spec.defaults import AgentSettings
from agentqueue.spec.worker_environment import worker_environment
from agentqueue_worker.app.options import DeadLetterTarget
from agentqueue_worker.settings import VARIABLES, Settings, default_name, read_settings
from tests.support import resources


def test_nothing_set_gives_the_defaults() -> None:
    settings = read_settings({env.QUEUE: "", "PATH": "/bin"})
    assert settings == Settings()
    options = settings.options("q", incarnation="1")
    assert (options.queue, options.declared_queue, options.concurrency, options.crash_limit) == ("q", "q", 5, 3)
    assert options.identity.owner == f"{default_name()}/1"
    assert options.dead_letters is None
    assert options.engine.rate_max == 0


def test_everything_the_operator_writes_is_read() -> None:
    settings = read_settings(
        {
            env.REDIS_URL: "redis://r", env.HANDLER: "m:a", env.AGENT: "search", env.QUEUE: "eu:search",
            env.CONCURRENCY: "20", env.JOB_TIMEOUT: "90.5", env.RETRY_ATTEMPTS: "7", env.RETRY_CRASHES: "2",
            env.BACKOFF_TYPE: "fixed", env.BACKOFF_DELAY: "3", env.BACKOFF_MAX_DELAY: "9", env.BACKOFF_JITTER: "0.5",
            env.RATE_LIMIT_MAX: "10", env.RATE_LIMIT_DURATION: "2", env.RESULT_SECONDS: "60",
            env.COMPLETED_SECONDS: "70", env.COMPLETED_COUNT: "80", env.DEAD_SECONDS: "90",
            env.AGEING_HIGH: "1", env.AGEING_NORMAL: "2", env.AGEING_LOW: "3",
            env.ON_DEAD_LETTER_QUEUE: "errors", env.ON_DEAD_LETTER_JOB: "look", env.GRACE_PERIOD: "33",
            env.PROBE_PORT: "8080", env.WORKER_NAME: "pod-1", env.POD_UID: "8a7b", env.LOG_LEVEL: "DEBUG",
            env.LOG_FORMAT: "json",
        }
    )  # fmt: skip
    assert settings.backoff == Backoff("fixed", 3.0, 9.0, 0.5)
    assert (settings.job_timeout, settings.attempts, settings.probe_port, settings.log_level) == (
        90.5,
        7,
        8080,
        "debug",
    )
    options = settings.options("search", incarnation="1")
    assert (options.queue, options.declared_queue, options.agent) == ("eu:search", "search", "search")
    assert (options.concurrency, options.crash_limit, options.grace, options.keep_ms) == (20, 2, 33.0, 60_000)
    assert options.dead_letters == DeadLetterTarget("errors", "look")
    assert (options.identity.container, options.identity.owner) == ("pod-1/8a7b", "pod-1/8a7b/1")
    assert options.identity.heartbeat_field == "pod-1", "by which the operator marks it"
    assert replace(options.identity, pod_uid=None).heartbeat_field == "pod-1/1", (
        "else two of one name would be taken for one"
    )
    engine = options.engine
    assert (engine.rate_max, engine.rate_window_ms, engine.age_limits_ms) == (10, 2_000, (1_000, 2_000, 3_000))
    assert (engine.history_ms, engine.history_count, engine.dead_ms) == (70_000, 80, 90_000)


OPERATOR_ONLY = {"scaling", "rollout"}
"""Fields of AgentSettings that no worker needs."""


def full_agent() -> ResolvedAgent:
    """An agent in which every optional setting of workers is set."""
    data = resources.agent(rateLimit={"max": 3}, onDeadLetter={"agent": "b"})
    return resolve(AgentQueue.model_validate(data)).agent("a")


def variants(setting: Any) -> Iterator[tuple[str, Any]]:
    """Yield a copy of a setting for each of its values, in which this value is another, with the value's path."""
    if is_dataclass(setting) and not isinstance(setting, type):
        for field in fields(setting):
            for path, other in variants(getattr(setting, field.name)):
                yield f".{field.name}{path}", replace(setting, **{field.name: other})
    elif isinstance(setting, StrEnum):
        yield "", next(other for other in type(setting) if other is not setting)
    else:
        yield "", f"{setting}-2" if isinstance(setting, str) else setting + 1


def test_each_setting_of_an_agent_reaches_the_worker_that_needs_it() -> None:
    agent = full_agent()
    ignored = {
        f"{field.name}{path}"
        for field in fields(AgentSettings)
        if field.name not in OPERATOR_ONLY
        for path, other in variants(getattr(agent, field.name))
        if worker_environment(replace(agent, **{field.name: other})) == worker_environment(agent)
    }
    assert ignored == {"on_dead_letter.agent"}, "a worker needs the queue of that agent instead"
    assert worker_environment(agent)[env.ON_DEAD_LETTER_QUEUE] == "b"


def test_each_variable_of_an_agent_s_settings_is_read_by_the_worker() -> None:
    variables = worker_environment(full_agent())
    assert variables.keys() <= set(VARIABLES)
    assert read_settings(variables).given >= {"handler", "agent", "queue", "concurrency", "backoff", "rate_max"}


def test_given_names_what_was_set_so_that_it_goes_over_an_arq_programs_own() -> None:
    settings = read_settings({env.CONCURRENCY: "5"}).override(grace=1.0, queue=None)
    assert settings.given == {"concurrency", "grace"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (env.CONCURRENCY, "0", "from 1 to 10000"),
        (env.CONCURRENCY, "many", "'many': must be a whole number from 1 to 10000"),
        (env.JOB_TIMEOUT, "-1", "from 0.001"),
        (env.JOB_TIMEOUT, "nan", "from 0.001"),
        (env.GRACE_PERIOD, "inf", "'inf': must be a number from 0 to 315360000 seconds"),
        (env.RETRY_ATTEMPTS, "0", "1 to 1000"),
        (env.RETRY_ATTEMPTS, "x", "must be a whole number from 1 to 1000"),
        (env.BACKOFF_TYPE, "linear", "exponential, fixed"),
        (env.BACKOFF_JITTER, "2", "from 0 to 1"),
        (env.QUEUE, "a b", "queue name"),
        (env.WORKER_NAME, "a/b", "without spaces"),
        (env.LOG_LEVEL, "loud", "debug, info"),
        (env.LIMITS, "[", "unexpected end"),
        (env.LIMITS, '[{"name": "gpt"}]', "limit 'gpt': a limit needs requestsPerMinute"),
    ],
)
def test_a_bad_value_names_its_variable(name: str, value: str, words: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        read_settings({name: value})
    assert words in str(caught.value)


@pytest.mark.parametrize("value", ["x", "inf", "-inf", "nan", "1e300"])
def test_no_number_is_read_that_is_none_or_has_no_end(value: str) -> None:
    numbers = [name for name in VARIABLES if name.endswith(("SECONDS", "MAX", "COUNT", "JITTER", "PORT", "ATTEMPTS"))]
    assert len(numbers) > 15
    for name in numbers:
        with pytest.raises(UsageError, match=f"{name}='{value}': must be a (whole )?number from"):
            read_settings({name: value})


def test_options_go_over_the_environment_even_over_what_is_wrong_there() -> None:
    settings = read_settings(
        {env.WORKER_NAME: "a b"}, {"--name": (env.WORKER_NAME, "mine"), "--grace": (env.GRACE_PERIOD, None)}
    )
    assert (settings.name, settings.grace, settings.given) == ("mine", 60.0, frozenset({"name"}))


@pytest.mark.parametrize(
    ("option", "variable", "value", "words"),
    [
        ("--name", env.WORKER_NAME, "", "--name '': must have 1 to 253 characters"),
        ("--queue", env.QUEUE, "", "--queue ''"),
        ("--log-level", env.LOG_LEVEL, "", "--log-level '': must be one of"),
        ("--grace", env.GRACE_PERIOD, float("inf"), "--grace 'inf': must be a number from 0 to 315360000 seconds"),
    ],
)
def test_a_bad_option_is_named_and_an_empty_one_is_not_absent(
    option: str, variable: str, value: object, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings({}, {option: (variable, value)})
    assert words in str(caught.value)


def test_the_default_name_is_in_the_alphabet_of_worker_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "my host/1|x")
    assert default_name().startswith("my-host-1-x-")


def test_limits_are_names_or_definitions() -> None:
    settings = read_settings({env.LIMITS: '["crm", {"name": "gpt", "concurrent": 2}]'})
    options = settings.options("q")
    assert options.limits == ("crm", "gpt")
    assert options.limit_definitions == {"gpt": Limit(concurrent=2)}
    assert not read_settings({}).options("q").limits
