"""Every integration test runs on a real Valkey and on a real Redis 7."""

import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from agentqueue.store import Server, ServerOptions
from tests.support.servers import KINDS, RunningServer, run_server

SLOW = {
    "test_acl.py",
    "test_arq_docs.py",
    "test_arq_programs.py",
    "test_benchmarks.py",
    "test_cli_in.py",
    "test_clock_jumps.py",
    "test_cluster_scaling.py",
    "test_connection_cuts.py",
    "test_costs.py",
    "test_console_fuzz.py",
    "test_docs.py",
    "test_drain_without_redis.py",
    "test_durable_cuts.py",
    "test_durable_kills.py",
    "test_durable_model.py",
    "test_durable_plans.py",
    "test_durable_storm.py",
    "test_engine_model.py",
    "test_failover.py",
    "test_first_moments.py",
    "test_frameworks.py",
    "test_wrong_type_keys.py",
    "test_installs.py",
    "test_kills.py",
    "test_limits_model.py",
    "test_limits_proof.py",
    "test_managed_redis.py",
    "test_metrics.py",
    "test_mistakes.py",
    "test_nasty_exceptions.py",
    "test_nothing_stuck_model.py",
    "test_process_one.py",
    "test_schedules_model.py",
    "test_secrets_hidden.py",
    "test_sentinel.py",
    "test_step_faults.py",
    "test_stream_faults.py",
    "test_streams_docs.py",
    "test_signals_model.py",
    "test_tls.py",
    "test_up.py",
    "test_up_external.py",
    "test_up_schedules.py",
    "test_without_workers.py",
    "test_worker_forks.py",
    "test_worker_process.py",
}
"""Files whose tests `make quick` leaves out: most of them start programs, or break servers and wait for leases."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests."""
    for item in items:
        if item.path.name in SLOW and item.path.parent.name == "integration":
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def _redis_installed() -> None:
    if shutil.which("redis-server") is None:
        from tests.support.debian import ensure_packages

        ensure_packages("redis-server")


@pytest.fixture(scope="session", params=KINDS)
def shared_server(request: pytest.FixtureRequest, _redis_installed: None) -> Iterator[RunningServer]:
    """One server for many tests; they empty it before they start."""
    with run_server(request.param) as server:
        yield server


@pytest.fixture
def server_url(shared_server: RunningServer) -> str:
    """The URL of an empty server that nobody else uses during the test."""
    with shared_server.client() as client:
        client.config_set("maxmemory", 0)
        client.flushall()
    return shared_server.url


@pytest.fixture(params=KINDS)
def start_server(request: pytest.FixtureRequest, _redis_installed: None) -> Iterator[Callable[..., RunningServer]]:
    """`start_server(maxmemory="3mb", appendonly="yes")`: a server of the test's own, which it may kill and restart."""
    with contextlib.ExitStack() as stack:
        yield lambda **config: stack.enter_context(run_server(request.param, **config))


@pytest.fixture
async def server(server_url: str) -> AsyncIterator[Server]:
    """A checked connection to the empty server."""
    async with Server(ServerOptions(server_url)) as connected:
        yield connected
