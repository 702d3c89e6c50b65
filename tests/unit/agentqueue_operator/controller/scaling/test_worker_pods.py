"""Tests of the functions that read pods and Deployments."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentqueue_operator.autoscaling.model import Pods
from agentqueue_operator.autoscaling.removal import Stage
from agentqueue_operator.controller.ports import ApiRefused
from agentqueue_operator.controller.scaling.worker_pods import (
    COST,
    has_low_cost,
    has_seen,
    has_seen_costs,
    has_settled,
    is_observed,
    replica_sets_of,
    replicas_of,
    serves_or_will,
    stage_of,
    start_of,
    summary_of,
    with_low_cost,
    without_low_cost,
)
from agentqueue_operator.resources.kinds import Object
from agentqueue_operator.resources.render.names import REMOVABLE_LABEL
from tests.support.scaling import FakeCluster, patched, pod

NOW = datetime(2026, 11, 25, 2, 10, tzinfo=UTC)
"""Wall clock of the tests, ten minutes after the creation of most pods."""


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
    """Return a pod that is not Ready since `turned`, whose container ended and may have restarted (`state`)."""
    end = {"terminated": {"exitCode": 137, "startedAt": at(started), "finishedAt": at(ended)}}
    container = {"name": "worker", "restartCount": 1} | (
        {"state": state, "lastState": end} if state else {"state": end, "lastState": {}}
    )
    found = pod("c", ready=False, containerStatuses=[{"name": "sidecar", "state": RUNS}, container])
    found["status"]["conditions"][0]["lastTransitionTime"] = at(turned)
    return found


def lost() -> Object:
    """A restarted node does not know when its containers ended."""
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
    for cost, ours in ((str(-(2**31)), True), ("-1", False)):
        found["metadata"]["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": cost}
        assert has_low_cost(found) is ours


def deployment(**status: Any) -> Object:
    known = {"observedGeneration": 1, "replicas": 2} | status
    return {"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": known}


def replica_set(replicas: int = 2, **status: Any) -> Object:
    known = {"observedGeneration": 1, "replicas": 2, "readyReplicas": 2, "fullyLabeledReplicas": 1} | status
    spec = {"replicas": replicas, "template": {"metadata": {"labels": {REMOVABLE_LABEL: "false"}}}}
    return {"metadata": {"generation": 1}, "spec": spec, "status": known}


@pytest.mark.parametrize(
    ("found", "sets", "expected"),
    [
        pytest.param(deployment(), [replica_set()], True, id="nothing-is-left-to-do"),
        pytest.param(None, [], False, id="there-is-no-deployment"),
        pytest.param(deployment(observedGeneration=0), [replica_set()], False, id="the-deployment-is-not-seen-yet"),
        pytest.param(deployment(), [replica_set(observedGeneration=0)], False, id="nor-the-replicaset"),
        pytest.param(deployment(), [replica_set(1)], False, id="one-is-about-to-be-removed"),
        pytest.param(deployment(), [None], False, id="the-replicaset-is-gone"),
    ],
)
def test_settled(found: Object | None, sets: list[Object | None], expected: bool) -> None:
    assert has_settled(found, sets) is expected


def removable(name: str) -> Object:
    return patched(pod(name), with_low_cost(pod(name)))


@pytest.mark.parametrize(
    ("sets", "pods", "expected"),
    [
        pytest.param([replica_set()], [pod("a"), removable("b")], True, id="as-it-is"),
        pytest.param([replica_set(fullyLabeledReplicas=2)], [pod("a"), removable("b")], False, id="not-the-cost"),
        pytest.param([replica_set()], [removable("b")], False, id="more-pods"),
    ],
)
def test_what_the_replicaset_knows_of_costs(sets: list[Object], pods: list[Object], expected: bool) -> None:
    assert has_seen_costs(sets, pods) is expected


@pytest.mark.parametrize(
    ("found", "sets", "pods", "expected"),
    [
        pytest.param(deployment(), [replica_set()], [pod("a"), removable("b")], True, id="as-they-are"),
        pytest.param(deployment(), [replica_set(3)], [pod("a"), removable("b")], False, id="another-number"),
        pytest.param(
            deployment(), [replica_set()], [pod("a", ready=False), removable("b")], False, id="another-one-is-ready"
        ),
        pytest.param(deployment(replicas=1), [], [pod("a")], False, id="one-is-about-to-come"),
        pytest.param(
            deployment(replicas=1, conditions=[{"type": "ReplicaFailure", "status": "True"}]),
            [],
            [pod("a")],
            True,
            id="one-can-not-come",
        ),
    ],
)
def test_what_the_replicaset_knows(found: Object, sets: list[Object], pods: list[Object], expected: bool) -> None:
    assert has_seen(found, sets, pods, current=2) is expected
    assert not has_seen(found, sets, pods, current=4)


def test_a_template_with_the_label_of_removable_pods_proves_nothing() -> None:
    odd = replica_set(fullyLabeledReplicas=2)
    odd["spec"]["template"]["metadata"]["labels"] = {REMOVABLE_LABEL: "true"}
    pods = [removable("a"), removable("b")]
    assert has_seen_costs([odd], pods)
    assert not has_seen(deployment(), [odd], pods, current=2)


def test_costs_are_set_and_taken_back_only_on_the_pod_that_was_seen() -> None:
    seen = pod("a")
    seen["metadata"]["annotations"] = {COST: "5"}
    marked = patched(seen, with_low_cost(seen))
    assert has_low_cost(marked)
    assert patched(marked, with_low_cost(marked)) == marked
    back = patched(marked, without_low_cost(marked))
    assert back["metadata"]["annotations"] == {COST: "5"}
    assert back["metadata"]["labels"][REMOVABLE_LABEL] == "false"
    with pytest.raises(ApiRefused):
        patched(marked, without_low_cost(seen))


def test_replicasets_of_pods() -> None:
    adopted = pod("x")
    adopted["metadata"]["ownerReferences"] = [{"kind": "Other", "name": "o", "controller": True}]
    assert replica_sets_of([pod("a"), pod("b"), pod("c", template="t2"), adopted]) == [
        "demo-work-12345-t1",
        "demo-work-12345-t2",
    ]


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
