"""Problems of pods and Deployments."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentqueue_operator.controller.status.pod_problems import (
    MAX_OUTPUT,
    ORDER,
    is_ready,
    last_end,
    problem_of,
    ready_count,
    ready_for,
    was_ready,
)
from agentqueue_operator.controller.status.reasons import Problem, Reason

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
LONG_AGO = "2026-01-01T11:00:00Z"


def pod(*containers: Object, ready: bool = False, **status: Any) -> Object:
    conditions = [
        {"type": "Ready", "status": str(ready), "lastTransitionTime": LONG_AGO},
        *status.pop("conditions", []),
    ]
    given = {"containerStatuses": list(containers), "conditions": conditions, **status}
    return {"metadata": {"name": "p"}, "status": given}


def waiting(reason: str, message: str = "", **more: Any) -> Object:
    return {"name": "worker", "image": "a:1", "state": {"waiting": {"reason": reason, "message": message}}, **more}


def ended(code: int, message: str = "", *, reason: str = "Error", looping: bool = True, **more: Any) -> Object:
    last = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}} if looping else {"running": {}}
    return {"name": "worker", "state": state, "lastState": last, "restartCount": 1, **more}


def unscheduled(message: str, since: str = LONG_AGO) -> Object:
    condition = {"type": "PodScheduled", "status": "False", "message": message, "lastTransitionTime": since}
    return pod(conditions=[condition])


HANDLER = (
    "log line\nagentqueue worker: handler 'a:agent': module 'a' does not import: ZeroDivisionError: division by zero"
)


@pytest.mark.parametrize(
    ("given", "reason", "message"),
    [
        pytest.param(
            pod(waiting("ImagePullBackOff", "not found")), Reason.IMAGE_PULL_FAILED, "a:1: not found", id="image"
        ),
        pytest.param(pod(waiting("ErrImagePull")), Reason.IMAGE_PULL_FAILED, "a:1: ErrImagePull", id="image-no-words"),
        pytest.param(
            pod(waiting("CreateContainerConfigError", 'secret "s" not found')),
            Reason.REFERENCE_MISSING,
            'secret "s" not found',
            id="secret",
        ),
        pytest.param(
            pod(waiting("CreateContainerConfigError", "couldn't find key k in Secret n/s")),
            Reason.REFERENCE_MISSING,
            "couldn't find key",
            id="key",
        ),
        pytest.param(
            pod(waiting("CreateContainerError", "no such device")),
            Reason.CONTAINER_NOT_STARTED,
            "no such device",
            id="container",
        ),
        pytest.param(
            pod(ended(1, HANDLER)), Reason.HANDLER_NOT_IMPORTED, "handler 'a:agent': module 'a'", id="handler"
        ),
        pytest.param(pod(ended(3, "boom")), Reason.CRASH_LOOPING, "ended with exit code 3: boom", id="crash"),
        pytest.param(pod(ended(0)), Reason.CRASH_LOOPING, "ended with exit code 0", id="ends-again-and-again"),
        pytest.param(
            pod(ended(1, looping=False, restartCount=2)), Reason.CRASH_LOOPING, "exit code 1", id="restarted-twice"
        ),
        pytest.param(
            pod({"name": "worker", "state": {"terminated": {"exitCode": 2}}}),
            Reason.CRASH_LOOPING,
            "exit code 2",
            id="has-just-ended",
        ),
        pytest.param(pod(ended(137, reason="OOMKilled")), Reason.OUT_OF_MEMORY, "ended with OOMKilled", id="memory"),
        pytest.param(
            pod(initContainerStatuses=[ended(1, "no")]), Reason.CRASH_LOOPING, "exit code 1: no", id="init-container"
        ),
        pytest.param(unscheduled("0/1 nodes are available"), Reason.UNSCHEDULABLE, "0/1 nodes", id="no-node"),
        pytest.param(
            unscheduled("pod has unbound immediate PersistentVolumeClaims"),
            Reason.VOLUME_NOT_BOUND,
            "unbound",
            id="volume",
        ),
    ],
)
def test_a_pod_s_problem(given: Object, reason: Reason, message: str) -> None:
    problem = problem_of([given], now=NOW)
    assert problem is not None
    assert problem.reason is reason
    assert message in problem.message


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(pod(ended(1), ready=True), id="it-serves"),
        pytest.param(
            {"metadata": {"name": "p", "deletionTimestamp": "now"}, "status": pod(ended(1))["status"]}, id="goes"
        ),
        pytest.param(pod({"name": "worker", "state": {"running": {}}}), id="it-starts"),
        pytest.param({"metadata": {"name": "p"}}, id="nothing-is-known"),
        pytest.param(pod(waiting("ContainerCreating")), id="it-is-made"),
        pytest.param(pod(ended(1, looping=False)), id="restarted-once"),
        pytest.param(pod(ended(0, looping=False, restartCount=5)), id="ended-well-and-runs-again"),
        pytest.param(unscheduled("no node", "2026-01-01T11:59:55Z"), id="not-scheduled-yet"),
        pytest.param(
            pod(conditions=[{"type": "PodScheduled", "status": "False"}]), id="not-scheduled-nobody-knows-since"
        ),
    ],
)
def test_no_problem(given: Object) -> None:
    assert problem_of([given], now=NOW) is None


def deployment(*conditions: Object, generation: int = 1, **status: Any) -> Object:
    return {
        "metadata": {"generation": generation},
        "spec": {"replicas": 1},
        "status": {"conditions": list(conditions), "observedGeneration": 1, **status},
    }


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ({"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}, Reason.QUOTA_EXCEEDED),
        ({"type": "ReplicaFailure", "status": "True", "message": "denied by a webhook"}, Reason.PODS_REFUSED),
        ({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}, Reason.ROLLOUT_STUCK),
    ],
)
def test_a_deployment_s_problem(condition: Object, reason: Reason) -> None:
    problem = problem_of([], deployment(condition), now=NOW)
    assert problem is not None
    assert problem.reason is reason


def test_problems_that_a_user_must_fix_come_first() -> None:
    pods = [unscheduled("no node"), pod(ended(1)), pod(waiting("ErrImagePull")), pod(waiting("ErrImagePull"))]
    assert problem_of(pods, now=NOW) == Problem(Reason.IMAGE_PULL_FAILED, "a:1: ErrImagePull", more=1)


def test_long_output_is_cut_at_the_front() -> None:
    problem = problem_of([pod(ended(1, "x" * 1000 + " the cause"))], now=NOW)
    assert problem is not None
    assert problem.message.endswith("the cause")
    assert len(problem.message) < MAX_OUTPUT + 100


def test_every_reason_has_a_remedy_and_those_of_pods_an_order() -> None:
    assert all(reason.remedy.endswith((".", ").")) for reason in Reason)
    assert len(set(ORDER)) == len(ORDER)


def test_ready_pods_are_counted() -> None:
    leaving = {**pod(ready=True), "metadata": {"name": "p", "deletionTimestamp": "now"}}
    assert ready_count([pod(ready=True), pod(), leaving, {"metadata": {}}]) == 1
    assert is_ready(pod(ready=True))
    assert ready_for([pod(), pod(ready=True)], NOW) == timedelta(hours=1)
    assert ready_for([pod()], NOW) == timedelta()


SCHEDULED = {"type": "PodScheduled", "status": "True"}
JUST_NOW, EXACTLY_LONG = "2026-01-01T11:50:01Z", "2026-01-01T11:50:00Z"


@pytest.mark.parametrize(
    ("reason", "since", "final"),
    [
        pytest.param("ErrImagePull", JUST_NOW, True, id="an-image"),
        pytest.param("CreateContainerConfigError", JUST_NOW, False, id="a-secret-may-come"),
        pytest.param("CreateContainerConfigError", EXACTLY_LONG, True, id="a-secret-did-not-come"),
    ],
)
def test_final_problems(reason: str, since: str, final: bool) -> None:
    given = pod(waiting(reason, 'secret "s" not found'), conditions=[SCHEDULED | {"lastTransitionTime": since}])
    problem = problem_of([given], now=NOW)
    assert problem is not None
    assert problem.is_final is final


@pytest.mark.parametrize(("since", "final"), [(JUST_NOW, False), (EXACTLY_LONG, True)])
def test_no_room_is_final_once_it_has_lasted(since: str, final: bool) -> None:
    for problem in (
        problem_of([unscheduled("0/1 nodes", since)], now=NOW),
        problem_of(
            [],
            deployment(
                {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota", "lastTransitionTime": since}
            ),
            now=NOW,
        ),
    ):
        assert problem is not None
        assert problem.is_final is final


def test_a_rollout_past_its_deadline_makes_any_problem_final() -> None:
    stuck = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    problem = problem_of([unscheduled("0/1 nodes", JUST_NOW)], deployment(stuck), now=NOW)
    assert problem is not None
    assert (problem.reason, problem.is_final) == (Reason.UNSCHEDULABLE, True)


def test_how_a_container_ended_last() -> None:
    assert last_end({"name": "worker"}) is None
    now, before = {"exitCode": 1}, {"exitCode": 2}
    assert last_end({"state": {"terminated": now}, "lastState": {"terminated": before}}) == now
    assert last_end({"state": {"running": {}}, "lastState": {"terminated": before}}) == before


def running(started_at: str, *, started: bool = True) -> Object:
    return {"name": "redis", "state": {"running": {"startedAt": started_at}}, "started": started}


BEFORE, AFTER = "2026-01-01T10:59:59Z", "2026-01-01T11:00:01Z"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(pod(running(BEFORE)), True, id="hangs"),
        pytest.param(pod(running(BEFORE), running(BEFORE)), True, id="with-a-sidecar"),
        pytest.param(pod(running(BEFORE), ready=True), False, id="serves"),
        pytest.param(pod(running(LONG_AGO)), False, id="in-the-same-second"),
        pytest.param(pod(running(AFTER)), False, id="never-was"),
        pytest.param(pod(running(BEFORE), running(AFTER)), False, id="a-container-started-anew"),
        pytest.param(pod(running(BEFORE, started=False)), False, id="loads-its-data"),
        pytest.param(pod(running(BEFORE), waiting("CrashLoopBackOff")), False, id="a-container-does-not-run"),
        pytest.param(pod(), False, id="no-container-yet"),
        pytest.param({"metadata": {"name": "p"}}, False, id="no-status-yet"),
        pytest.param(
            pod(running(BEFORE)) | {"metadata": {"name": "p", "deletionTimestamp": LONG_AGO}}, False, id="goes"
        ),
    ],
)
def test_a_pod_that_was_ready_and_is_not_any_more(given: Object, expected: bool) -> None:
    assert was_ready(given) is expected
