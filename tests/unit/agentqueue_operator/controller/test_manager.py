"""Probes, gauges of the operator's parts, and when the operator is healthy."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest

from agentqueue.errors import UsageError
from agentqueue.service.probes import Probes
from agentqueue_operator.controller import manager
from agentqueue_operator.controller.kubernetes.api import ApiServer
from agentqueue_operator.controller.kubernetes.cache import StoreCache
from agentqueue_operator.controller.kubernetes.leader_elector import LeaderElector
from agentqueue_operator.controller.kubernetes.watches import Watches
from agentqueue_operator.controller.manager import Heartbeat, Operator, add_gauges, watched_kinds
from agentqueue_operator.controller.metrics import Metrics
from agentqueue_operator.controller.settings import PORT, Settings
from agentqueue_operator.controller.work_queue import WorkQueue
from agentqueue_operator.resources.kinds import AGENT_QUEUE, SECRET


def operator(
    *,
    leads: bool = True,
    synced: bool = True,
    age_s: float = 0.0,
    last_round_at: float = 100.0,
    late_s: float = 0.0,
    silent_s: float = 0.0,
    problems: Sequence[str] = (),
) -> Operator:
    """Return an operator whose parts are in the given states."""
    cache = MagicMock(spec=StoreCache, **{"watch_problems.return_value": problems, "__len__.return_value": 5})
    late = {"oldest_reconcile_s.return_value": late_s, "waiting.return_value": 4, "__len__.return_value": 5}
    return Operator(
        settings=Settings(),
        metrics=Metrics(),
        heartbeat=Mock(spec=Heartbeat, age_s=age_s),
        elector=Mock(spec=LeaderElector, leads=leads, last_round_at=last_round_at),
        cache=cache,
        watches=Mock(spec=Watches, synced=synced, down=2, starts=3),
        work_queue=MagicMock(spec=WorkQueue, **late),
        api=Mock(spec=ApiServer, silent_s=silent_s),
    )


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "monotonic", lambda: 100.0)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        pytest.param({}, "", id="all-well"),
        pytest.param({"age_s": 31.0}, "the event loop is stuck", id="the-loop-hangs"),
        pytest.param({"last_round_at": 39.0}, "the leader elector is stuck", id="the-elector-hangs"),
        pytest.param({"late_s": 31.0}, "the reconcile of an AgentQueue is 31 s late", id="a-pass-hangs"),
        pytest.param({"late_s": 29.0}, "", id="a-pass-is-slow"),
        pytest.param({"late_s": 31.0, "silent_s": 11.0}, "", id="the-api-server-is-away"),
        pytest.param({"late_s": 31.0, "leads": False}, "", id="it-stands-by"),
    ],
)
def test_only_a_problem_that_a_restart_fixes_is_unhealthy(given: dict[str, Any], problem: str) -> None:
    assert operator(**given).unhealthy() == problem


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"leads": False}, ""),
        ({"synced": False}, "the caches are not filled yet"),
        ({"synced": False, "problems": ["agentqueues: no such kind"]}, "agentqueues: no such kind"),
        ({"problems": ["pods: forbidden"]}, ""),
    ],
)
def test_a_replica_that_could_take_over_is_ready(given: dict[str, Any], problem: str) -> None:
    assert operator(**given).unready() == problem


def test_an_operator_acts_only_on_complete_caches() -> None:
    assert operator().leads
    assert not operator(synced=False).leads
    assert not operator(leads=False).leads


def test_secrets_are_watched_only_if_they_may_be_read() -> None:
    assert SECRET in watched_kinds(Settings())
    assert SECRET not in watched_kinds(Settings(read_secrets=False))
    assert AGENT_QUEUE in watched_kinds(Settings(read_secrets=False))


async def test_the_heartbeat_shows_that_the_event_loop_makes_progress() -> None:
    heartbeat = Heartbeat()
    beating = asyncio.create_task(heartbeat.run())
    await asyncio.sleep(0)
    assert heartbeat.age_s < 5
    beating.cancel()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_gauges_show_the_state_of_the_parts() -> None:
    one = operator()
    add_gauges(one)
    assert value(one.metrics, "agentqueue_operator_leader") == 1.0
    assert value(one.metrics, "agentqueue_operator_watches_down") == 2.0
    assert value(one.metrics, "agentqueue_operator_work_queue_depth") == 4.0


@pytest.fixture
def said() -> dict[str, str]:
    return {"live": "", "ready": ""}


@pytest.fixture
def probes(said: dict[str, str]) -> Iterator[Probes]:
    one = Probes(0, PORT, registry=Metrics().registry, live=lambda: said["live"], ready=lambda: said["ready"])
    one.start()
    yield one
    one.stop()


def ask(probes: Probes, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{probes.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_probes_answer_with_the_reason(probes: Probes, said: dict[str, str]) -> None:
    assert ask(probes, "/healthz") == (200, "alive\n")
    assert ask(probes, "/readyz") == (200, "ready\n")
    said |= {"live": "the loop hangs", "ready": "the caches are not filled yet"}
    assert ask(probes, "/healthz") == (503, "the loop hangs\n")
    assert ask(probes, "/readyz?verbose") == (503, "the caches are not filled yet\n")
    assert ask(probes, "/")[0] == 404
    assert "agentqueue_operator_reconcile_duration_seconds" in ask(probes, "/metrics")[1]


def test_a_port_in_use_is_reported(probes: Probes) -> None:
    with pytest.raises(UsageError, match="AGENTQUEUE_OPERATOR_PORT"):
        Probes(probes.port, PORT, registry=Metrics().registry, live=lambda: "", ready=lambda: "")
