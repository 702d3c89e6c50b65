"""The state of rollouts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue_operator.controller.status.rollout import Templates, is_rolling_out, newest_pods, was_complete

Object = dict[str, Any]


def deployment(image: str = "a:1", *, generation: int = 1, observed: int = 1, **status: Any) -> Object:
    return {
        "metadata": {"uid": "d", "generation": generation},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "worker", "image": image}]}}},
        "status": {"observedGeneration": observed, **status},
    }


def pod(name: str, version: str, second: int = 0) -> Object:
    labels = {"pod-template-hash": version}
    return {"metadata": {"name": name, "labels": labels, "creationTimestamp": f"2026-01-01T12:00:{second:02}Z"}}


def test_a_change_of_the_template_is_observed_once_its_controller_has_seen_it() -> None:
    templates = Templates()
    assert templates.is_observed(deployment())
    assert not templates.is_observed(deployment("a:2", generation=2))
    assert not templates.is_observed(deployment("a:2", generation=3))
    assert templates.is_observed(deployment("a:2", generation=3, observed=2))


def test_a_change_of_the_number_of_pods_is_no_rollout() -> None:
    templates = Templates()
    templates.is_observed(deployment())
    assert templates.is_observed(deployment(generation=2, observed=1))


def test_an_unknown_object_counts_as_changed() -> None:
    """After a restart of the operator nobody knows whether the template or the number changed."""
    assert not Templates().is_observed(deployment(generation=2, observed=1))
    assert Templates().is_observed({"metadata": {}, "spec": {}})


def test_objects_that_are_gone_are_forgotten() -> None:
    templates = Templates()
    templates.is_observed(deployment())
    templates.forget_all_but(["d"])
    assert templates.is_observed(deployment(generation=2, observed=1))
    templates.forget_all_but([])
    assert not templates.is_observed(deployment(generation=2, observed=1))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_a_template_counts_as_observed_exactly_when_the_controller_has_reached_its_generation(
    steps: list[tuple[bool, bool]],
) -> None:
    """Any order of changes of template and number, and of the controller's catching up."""
    templates, version, generation, observed, changed_at = Templates(), 0, 1, 1, 1
    templates.is_observed(deployment("v0"))
    for changes_template, controller_runs in steps:
        generation += 1
        if changes_template:
            version, changed_at = version + 1, generation
        observed = generation if controller_runs else observed
        live = deployment(f"v{version}", generation=generation, observed=observed)
        assert templates.is_observed(live) is (observed >= changed_at)


@pytest.mark.parametrize(
    ("live", "observed", "expected"),
    [
        pytest.param(deployment(replicas=2, updatedReplicas=2), True, False, id="all-new"),
        pytest.param(deployment(replicas=2, updatedReplicas=1), True, True, id="old-ones-are-there"),
        pytest.param(deployment(replicas=2, updatedReplicas=2), False, True, id="not-observed"),
        pytest.param(deployment(), True, False, id="at-zero"),
        pytest.param({"metadata": {}}, True, False, id="no-status-yet"),
    ],
)
def test_rolling_out(live: Object, observed: bool, expected: bool) -> None:
    assert is_rolling_out(live, is_observed=observed) is expected


def test_a_rollout_was_complete_once_its_newest_version_was_available() -> None:
    done = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}
    assert was_complete(deployment(conditions=[done]))
    assert not was_complete(deployment(conditions=[{**done, "reason": "ReplicaSetUpdated"}]))
    assert not was_complete(deployment())


def test_the_newest_pods_are_those_of_the_version_that_began_last() -> None:
    old, again, new = pod("old", "1"), pod("evicted-and-made-again", "1", 40), pod("new", "2", 30)
    live = deployment(updatedReplicas=1)
    assert newest_pods([old, again, new], live) == [new]
    assert newest_pods([old, again], live) == [old, again]
    assert newest_pods([], live) == []
    assert newest_pods([old], deployment(updatedReplicas=0)) == ()  # no pod of the newest version yet
    assert newest_pods([old], None) == [old]
    same_second = pod("new", "2")
    assert newest_pods([old, same_second], live) == [old, same_second]
    assert newest_pods([{"metadata": {"name": "p"}}], live) == [{"metadata": {"name": "p"}}]
