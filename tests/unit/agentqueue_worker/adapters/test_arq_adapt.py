"""`agentqueue worker module.WorkerSettings`: what the class says, and what goes over it."""

import ast
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from arq import cron, func
from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.asyncio.sentinel import SentinelConnectionPool

from agentqueue.errors import HandlerImportError
from agentqueue.store import ServerOptions, Tls
from agentqueue_worker.adapters.arq import adapt
from agentqueue_worker.adapters.arq.adapt import Adapted
from agentqueue_worker.adapters.arq.connect import lazy_pool, redis_settings_at
from agentqueue_worker.settings import Settings, read_settings
from tests.support.arq_programs import PICKLE

if TYPE_CHECKING:
    from agentqueue.store import Server

ROOT = Path(__file__).parents[4]


async def search(ctx: dict[str, Any]) -> None:
    """A function to register."""


class Told:
    functions: ClassVar = [search]
    queue_name = "trips"
    max_jobs = 7
    burst = True
    job_completion_wait = 9
    poll_delay = 0.1
    keep_result = 30
    max_burst_jobs = 4
    allow_abort_jobs = True
    redis_settings = RedisSettings(host="redis.example", port=6400, database=2)
    something_else = "arq ignores what it does not know"


def adapted(target: Any = Told, *, found: str | None = None, **environ: str) -> Adapted:
    settings = read_settings({f"AGENTQUEUE_{name}": value for name, value in environ.items()})
    return adapt(target, settings, lambda: ServerOptions(found) if found else None)


# --- place and size ------------------------------------------------------------------------------------------------


def test_the_class_says_where_and_how_much_if_nobody_else_does() -> None:
    found = adapted()
    settings = found.settings
    assert (found.declared_queue, settings.concurrency, settings.burst, settings.grace) == ("trips", 7, True, 9.0)
    assert settings.redis is None
    assert _address(found) == ("redis.example", 6400, 2)


async def test_what_is_given_goes_over_the_class() -> None:
    found = adapted(REDIS_URL="redis://other:1", QUEUE="q", CONCURRENCY="2", TERMINATION_GRACE_PERIOD_SECONDS="44")
    settings = found.settings
    assert (found.declared_queue, settings.concurrency, settings.grace) == ("q", 2, 44.0)
    assert settings.redis == ServerOptions("redis://other:1")
    assert found.open_server is None  # the URL says all
    assert found.registry.worker.redis_settings == RedisSettings(host="other", port=1)
    assert found.registry.worker.max_jobs == 2


def test_a_class_without_redis_settings_is_served_where_redis_is_found() -> None:
    found = adapted({"functions": [search]}, found="redis://found:3")
    assert found.settings.redis == ServerOptions("redis://found:3")
    assert found.registry.worker.redis_settings == RedisSettings(host="found", port=3)


def test_arqs_defaults_hold_where_neither_says() -> None:
    found = adapted({"functions": [search]}, found="redis://found")
    assert (found.declared_queue, found.settings.concurrency, found.settings.burst) == ("arq:queue", 10, False)
    assert found.settings.grace == Settings().grace
    options = found.adjust(found.settings.options(found.declared_queue))
    assert (options.poll, options.keep_ms, options.burst_delayed, options.start_limit) == (0.5, 3_600_000, True, None)


def test_a_pool_of_the_class_says_where_redis_is() -> None:
    pool = ArqRedis(host="pooled", port=5)
    found = adapted({"functions": [search], "redis_pool": pool, "queue_name": None})
    assert (found.declared_queue, _address(found)) == (pool.default_queue_name, ("pooled", 5, 0))


def test_the_claim_loop_is_told_what_arqs_arguments_say() -> None:
    found = adapted()
    options = found.adjust(found.settings.options(found.declared_queue))
    assert (options.poll, options.keep_ms, options.burst, options.start_limit) == (0.1, 30_000, True, 4)
    assert found.registry.cancellable


@pytest.mark.parametrize("option", ["job_completion_wait", "keep_result", "poll_delay", "health_check_interval"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_time_without_an_end_is_refused_by_its_name(option: str, value: float) -> None:
    with pytest.raises(HandlerImportError, match=f"{option}={value}: must be up to 315360000 seconds"):
        adapted({"functions": [search], option: value})


def test_so_is_a_function_s_own() -> None:
    with pytest.raises(HandlerImportError, match=r"search: keep_result=inf: must be .* keep_result_forever"):
        adapted({"functions": [func(search, keep_result=float("inf"))]}, found="redis://found")


def test_a_limit_of_starts_counts_in_burst_mode_only() -> None:
    found = adapted({"functions": [search], "max_burst_jobs": 4}, found="redis://found")
    assert found.adjust(found.settings.options("q")).start_limit is None


def test_eviction_is_refused_unless_allowed() -> None:
    for allowed in (False, True):
        found = adapt(Told, Settings().override(allow_eviction=allowed), lambda: None)
        assert found.open_server is not None
        assert found.open_server(False).options.allow_eviction is allowed


def test_the_renewing_thread_gets_a_hasty_server() -> None:
    opener = adapted().open_server
    assert opener is not None
    patient, for_lease_thread = opener(False), opener(True)
    assert for_lease_thread.options.timeout < patient.options.timeout
    assert for_lease_thread.redis.connection_pool is not patient.redis.connection_pool


def _address(found: Adapted) -> tuple[Any, ...]:
    assert found.open_server is not None
    server: Server = found.open_server(False)
    kwargs = server.redis.connection_pool.connection_kwargs
    return kwargs["host"], kwargs["port"], kwargs.get("db")


# --- functions, crons, serializers -----------------------------------------------------------------------------------


def test_names_are_the_functions_and_crons() -> None:
    found = adapted({"functions": [search], "cron_jobs": [cron(search, hour=3)]}, found="redis://found")
    assert list(found.registry.names) == ["search", "cron:search"]
    assert found.registry.find("nope") is None
    assert [it.name for it in found.registry.crons] == ["cron:search * * * 3 * 0 123456"]


def test_a_cron_that_is_not_unique_is_left_to_each_worker() -> None:
    crons = [cron(search, unique=False), cron(search, unique=False, job_id="own", name="own")]
    found = adapted({"cron_jobs": crons}, found="redis://found")
    assert [it.name for it in found.registry.crons] == ["own * * * * * 0 123456"]


@pytest.mark.parametrize(("arq_pickle", "expected"), [(None, False), (True, True)])
def test_pickle_is_asked_for_by_the_option(arq_pickle: bool | None, expected: bool) -> None:
    found = adapt(Told, Settings().override(arq_pickle=arq_pickle), lambda: None)
    chosen = found.registry.worker.serializers
    assert ((chosen.write, chosen.read) == tuple(PICKLE.values())) is expected


@pytest.mark.parametrize(
    ("target", "text"),
    [
        pytest.param({"functions": []}, "at least one function", id="nothing"),
        pytest.param({"functions": [search], "queue_name": None}, "redis_pool must be present", id="no-queue"),
        pytest.param({"functions": [print]}, "is not a coroutine function", id="no-coroutine"),
        pytest.param({"functions": [search], "cron_jobs": [search]}, "instances of CronJob", id="no-cron"),
        pytest.param({"functions": ["no.such.function"]}, "No module named", id="no-import"),
    ],
)
def test_what_arq_would_refuse_is_refused_with_its_words(target: Any, text: str) -> None:
    with pytest.raises(HandlerImportError, match=text):
        adapted(target, found="redis://found")


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", RedisSettings(host="h")),
        ("redis://u:p%40ss%2F@h:7/3", RedisSettings(host="h", port=7, database=3, username="u", password="p@ss/")),
        ("rediss://:x@h?db=4", RedisSettings(host="h", ssl=True, database=4, password="x", ssl_ca_certs="ca.pem")),
        ("unix:///run/redis.sock", RedisSettings(unix_socket_path="/run/redis.sock")),
    ],
)
def test_a_url_is_read_as_redis_py_reads_it(url: str, expected: RedisSettings) -> None:
    found = redis_settings_at(ServerOptions(url, tls=Tls(ca_file="ca.pem") if url.startswith("rediss") else None))
    assert {k: v or None for k, v in vars(found).items()} == {k: v or None for k, v in vars(expected).items()}


def test_the_lazy_pool_takes_every_setting_that_arqs_create_pool_hands_on() -> None:
    """If a new version of arq reads another setting, this test fails until `lazy_pool` reads it too."""

    def read_by(function: Any, name: str) -> set[str]:
        tree = ast.parse(inspect.getsource(function))
        return {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
        }

    # Timeouts and retries are the claim loop's own; the others are arq's waiting for its first connection.
    own = {"conn_timeout", "conn_retries", "conn_retry_delay", "retry", "retry_on_timeout", "retry_on_error"}
    assert read_by(create_pool, "settings") - read_by(lazy_pool, "given") == own | {"max_connections"}


def test_a_sentinels_primary_is_asked_for_lazily() -> None:
    pool = lazy_pool(RedisSettings(host=[("127.0.0.1", 1)], sentinel=True, sentinel_master="m", database=2))
    assert isinstance(pool, SentinelConnectionPool)
    assert pool.service_name == "m"
    assert pool.connection_kwargs["db"] == 2


# --- the house -------------------------------------------------------------------------------------------------------


def test_of_worker_and_operator_only_the_adapter_imports_arq() -> None:
    importing = {
        path.relative_to(ROOT)
        for source in ("worker/src", "operator/src")
        for path in (ROOT / source).rglob("*.py")
        if "arq" in {name.partition(".")[0] for name in _imports(path)}
    }
    adapter = Path("worker/src/agentqueue_worker/adapters/arq")
    assert importing
    assert {path for path in importing if path.parent != adapter} == set()


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found
