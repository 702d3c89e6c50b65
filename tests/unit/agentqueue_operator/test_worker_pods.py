"""What scaling reads from pods and Deployments."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentqueue_operator.domain.drain import Stage
from agentqueue_operator.domain.kinds import Object
from agentqueue_operator.domain.scaling import Pods
from agentqueue_operator.domain.worker_pods import (
    has_low_cost,
    is_observed,
    replicas_of,
    serves_or_will,
    stage_of,
    start_of,
    summary_of,
)
from tests.support.scaling import FakeCluster, pod

NOW = datetime(2026, 11, 25, 2, 10, tzinfo=UTC)
"""All pods of the tests were made ten minutes before, if they don't say otherwise."""


def unscheduled(reason: str = "Unschedulable") -> Object:
    found = pod("u", ready=False, phase="Pending", containerStatuses=[])
    found["spec"] = {}
    found["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": reason}]
    return found


def waits(reason: str) -> Object:
    return pod("w", ready=False, containerStatuses=[{"name": "worker", "state": {"waiting": {"reason": reason}}}])


def at(second: int) -> str:
    return f"2026-11-25T02:00:{second:02}Z"


RUNS = {"running": {"startedAt": at(30)}}


def crashed(*, started: int = 5, ended: int = 20, turned: int = 20, state: Object | None = None) -> Object:
    """Not Ready since `turned`; its worker container started, ended, and is back (`state`; None: not yet)."""
    end = {"terminated": {"exitCode": 137, "startedAt": at(started), "finishedAt": at(ended)}}
    container = {"name": "worker", "restartCount": 1} | (
        {"state": state, "lastState": end} if state else {"state": end, "lastState": {}}
    )
    found = pod("c", ready=False, containerStatuses=[{"name": "sidecar", "state": RUNS}, container])
    found["status"]["conditions"][0]["lastTransitionTime"] = at(turned)
    return found


def lost() -> Object:
    """A node that started anew does not know when its containers ended."""
    found = crashed(state=RUNS)
    found["status"]["containerStatuses"][1]["lastState"]["terminated"] |= {"startedAt": None, "finishedAt": None}
    return found


@pytest.mark.parametrize(
    ("found", "stage"),
    [
        pytest.param(unscheduled(), Stage.UNSCHEDULED, id="no-node"),
        pytest.param(pod("a", ready=False, phase="Pending"), Stage.PENDING, id="its-image-is-pulled"),
        pytest.param({"spec": {"nodeName": "n"}, "metadata": {}}, Stage.PENDING, id="no-status-yet"),
        pytest.param(pod("a", ready=False), Stage.NOT_READY, id="it-imports"),
        pytest.param(pod("a"), Stage.READY, id="ready"),
    ],
)
def test_stages(found: Object, stage: Stage) -> None:
    assert stage_of(found) is stage


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param([pod("a"), pod("b", ready=False)], Pods(ready=1, starting=1), id="ready-and-starting"),
        pytest.param([unscheduled()], Pods(unschedulable=1), id="unschedulable"),
        pytest.param([unscheduled("SchedulingGated")], Pods(starting=1), id="held-back-on-purpose"),
        pytest.param([waits("CrashLoopBackOff"), waits("ImagePullBackOff")], Pods(failing=2), id="failing"),
        pytest.param([waits("ContainerCreating")], Pods(starting=1), id="being-made"),
        pytest.param([pod("a", ready=False, containerStatuses=[])], Pods(starting=1), id="no-container-yet"),
        pytest.param([crashed(turned=1)], Pods(failing=1), id="ended-before-it-was-ready"),
        pytest.param([crashed(turned=1, state=RUNS)], Pods(failing=1), id="runs-again-after-it-ended-unready"),
        pytest.param([crashed(started=20, state=RUNS)], Pods(failing=1), id="ended-in-the-second-of-its-start"),
        pytest.param([crashed()], Pods(starting=1), id="a-ready-one-that-has-just-ended"),
        pytest.param([crashed(state=RUNS)], Pods(starting=1), id="a-ready-one-that-ended-comes-back"),
        pytest.param([crashed(turned=21, state=RUNS)], Pods(starting=1), id="the-kubelet-saw-its-end-later"),
        pytest.param([crashed(ended=25, state=RUNS)], Pods(failing=1), id="it-came-back-and-ended-unready"),
        pytest.param([lost()], Pods(starting=1), id="nobody-knows-when-it-ended"),
        pytest.param(
            [pod("a"), pod("b", template="t2")], Pods(ready=2, rolling_out=True), id="two-templates-are-a-rollout"
        ),
    ],
)
def test_summary(pods: list[Object], expected: Pods) -> None:
    assert summary_of(pods, None, now=NOW) == expected


def test_pods_of_the_last_minute_are_young() -> None:
    pods = [pod(name) for name in "abc"]
    for one, made in zip(pods, ("2026-11-25T02:09:00Z", "2026-11-25T02:09:01Z", "2026-11-25T02:10:02Z"), strict=True):
        one["metadata"]["creationTimestamp"] = made  # the last: by an API server whose clock is ahead
    assert summary_of(pods, None, now=NOW).young == 2


def test_old_pods_that_the_cache_does_not_show_are_a_rollout_too() -> None:
    deployment = FakeCluster(2).deployment
    deployment["status"] |= {"replicas": 3, "updatedReplicas": 1}
    assert summary_of([pod("a")], deployment, now=NOW).rolling_out
    deployment["status"] |= {"replicas": 1}
    assert not summary_of([pod("a")], deployment, now=NOW).rolling_out


def test_pods_that_ended_or_end_do_not_serve() -> None:
    ending = pod("a")
    ending["metadata"]["deletionTimestamp"] = "2026-11-25T02:00:00Z"
    assert [serves_or_will(one) for one in (pod("a"), ending, pod("b", phase="Failed"))] == [True, False, False]


def test_only_our_cost_is_ours() -> None:
    found = pod("a")
    assert not has_low_cost(found)
    for cost, ours in (("-1000", True), ("-1", False)):
        found["metadata"]["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": cost}
        assert has_low_cost(found) is ours


@pytest.mark.parametrize(
    ("given", "took_s"),
    [
        pytest.param({}, 4.0, id="from-made-to-ready"),
        pytest.param({"made": "2026-11-25T02:00:04Z"}, 0.5, id="within-a-second"),
        pytest.param({"made": "2026-11-25T00:00:00Z"}, 600.0, id="waited-for-a-node"),
        pytest.param({"ready": False}, None, id="not-ready"),
        pytest.param({"restarts": 1}, None, id="not-its-first-start"),
    ],
)
def test_start(given: dict[str, Any], took_s: float | None) -> None:
    found = pod("a", ready=given.get("ready", True))
    found["metadata"]["creationTimestamp"] = given.get("made", "2026-11-25T02:00:00Z")
    found["status"]["containerStatuses"][0]["restartCount"] = given.get("restarts", 0)
    assert start_of(found) == (None if took_s is None else timedelta(seconds=took_s))


def test_a_deployment_that_is_not_there_asks_for_none() -> None:
    assert replicas_of(None) == 0
    assert replicas_of({"spec": {}}) == 1
    assert not is_observed({"metadata": {"generation": 2}, "status": {"observedGeneration": 1}})
    assert not is_observed({"metadata": {"generation": 1}})
