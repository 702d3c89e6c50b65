"""Tests of the detection of crashed worker containers, each of which is handled once."""

from datetime import UTC, datetime
from typing import Any

import pytest

from agentqueue_operator.controller.ports import AgentPods
from agentqueue_operator.controller.scaling.crashed_workers import crash_of
from agentqueue_operator.controller.scaling.lease_recovery import LeaseRecovery
from agentqueue_operator.controller.scaling.scaler import QueueScaler
from agentqueue_operator.queues.ports import WorkerCrash
from agentqueue_operator.resources.kinds import Object
from tests.support.scaling import FakeCluster, FakeQueues, pod, queue_of

ENDED = "2026-11-25T02:10:07Z"
ENDED_MS = int(datetime(2026, 11, 25, 2, 10, 7, tzinfo=UTC).timestamp() * 1000)


def terminated(reason: str = "Error", code: int = 137, **given: Any) -> dict[str, Any]:
    """Return the state of an ended container as the kubelet reports it."""
    ended = {"reason": reason, "exitCode": code, "finishedAt": ENDED, "containerID": "containerd://1", **given}
    return {"terminated": ended}


def died(state: Any = None, last: Any = None, *, name: str = "worker", phase: str = "Running") -> Object:
    """Return a pod with one container in these states."""
    container = {"name": name, "restartCount": 1, "state": state or {"running": {}}, "lastState": last or {}}
    return pod("w-1", phase=phase, containerStatuses=[container])


@pytest.mark.parametrize(
    ("given", "of_pod"),
    [
        pytest.param(died(terminated()), False, id="it-has-ended"),
        pytest.param(died({"waiting": {"reason": "CrashLoopBackOff"}}, terminated()), False, id="it-waits-for-another"),
        pytest.param(died(None, terminated()), False, id="another-runs-already"),
        pytest.param(died(terminated(), phase="Failed"), True, id="the-pod-has-failed"),
        pytest.param(died(terminated(), phase="Succeeded"), True, id="the-pod-has-ended"),
    ],
)
def test_a_terminated_state_proves_a_death(given: Object, of_pod: bool) -> None:
    death = crash_of(given)
    assert death == WorkerCrash(
        worker="w-1",
        pod_uid="uid-w-1",
        container="containerd://1",
        ended_ms=ENDED_MS,
        why="killed by SIGKILL (exit code 137)",
        of_pod=of_pod,
    )


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(died(), id="it-runs"),
        pytest.param(died(terminated("Completed", code=0), phase="Succeeded"), id="it-drained"),
        pytest.param(died(phase="Failed"), id="a-lost-nodes-pod-that-was-given-up"),
        pytest.param(died(terminated(), name="sidecar"), id="something-beside-it"),
        pytest.param(pod("w-1", containerStatuses=None), id="nothing-is-known"),
        pytest.param({"metadata": {"name": "w-1", "uid": "u"}}, id="no-status-yet"),
    ],
)
def test_nothing_else_does(given: Object) -> None:
    assert crash_of(given) is None


def test_a_terminating_pod_may_run_another_container_still() -> None:
    ending = died(terminated())
    ending["metadata"]["deletionTimestamp"] = ENDED
    death = crash_of(ending)
    assert death is not None
    assert not death.of_pod


@pytest.mark.parametrize(
    ("state", "why"),
    [
        pytest.param(
            terminated("OOMKilled"), "OOMKilled, its container went over its memory limit (exit code 137)", id="oom"
        ),
        pytest.param(terminated(code=143), "killed by SIGTERM (exit code 143)", id="signal-by-exit-code"),
        pytest.param(terminated(code=0, signal=9), "killed by SIGKILL (exit code 0)", id="signal"),
        pytest.param(terminated(code=3), "its container ended (Error) (exit code 3)", id="exit-code"),
        pytest.param(terminated("", code=250), "its container ended (exit code 250)", id="no-such-signal"),
    ],
)
def test_why_in_words(state: Any, why: str) -> None:
    death = crash_of(died(state))
    assert death is not None
    assert death.why == why


def test_a_death_without_a_time_or_an_id_is_identified_by_the_count_of_restarts() -> None:
    death = crash_of(died(terminated(finishedAt=None, containerID="")))
    assert death is not None
    assert (death.ended_ms, death.container) == (0, "uid-w-1/1")


async def test_each_death_is_dealt_with_once() -> None:
    recovery, queues = LeaseRecovery(), FakeQueues()
    assert await recovery.release_leases({"work": [died(terminated()), pod("w-2")]}, queues) == ["w-1"]
    assert await recovery.release_leases({"work": [died(terminated())]}, queues) == []
    assert await recovery.release_leases({"work": [died(terminated(containerID="containerd://2"))]}, queues) == ["w-1"]
    assert [death.container for death in queues.released] == ["containerd://1", "containerd://2"]


async def test_what_redis_does_not_take_is_tried_again() -> None:
    recovery, queues = LeaseRecovery(), FakeQueues(down=True)
    assert await recovery.release_leases({"work": [died(terminated())]}, queues) == []
    queues.down = False
    assert await recovery.release_leases({"work": [died(terminated())]}, queues) == ["w-1"]


async def test_the_scaler_buries_by_agent() -> None:
    cluster, queues = FakeCluster(), FakeQueues()
    agents = {"work": AgentPods(deployment=None, pods=[died(terminated())])}
    assert list(await QueueScaler(cluster).release_leases(queue_of(), agents, queues=queues)) == ["w-1"]
    assert list(await QueueScaler(cluster).release_leases(queue_of(), {}, queues=queues)) == []
