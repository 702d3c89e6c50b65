"""The facts of an agent in the status."""

from typing import Any

import pytest

from agentqueue_operator.controller.ports import Scaled
from agentqueue_operator.controller.status.facts import Rollout, agent_facts
from tests.support import resources
from tests.support.rendering import queue


@pytest.mark.parametrize(
    ("deployment", "desired"),
    [
        pytest.param({"spec": {"replicas": 3}}, 3, id="set by another autoscaler"),
        pytest.param({"spec": {}}, 1, id="not set, which Kubernetes reads as one"),
        pytest.param(None, 0, id="no Deployment yet"),
    ],
)
def test_in_mode_external_the_deployment_says_how_many_workers_are_desired(
    deployment: dict[str, Any] | None, desired: int
) -> None:
    resolved = queue(resources.scaled(mode="External"))
    rollout = Rollout(deployment, (), rolling_out=False, problem=None, newest_problem=None)
    facts = agent_facts(
        resolved, resolved.agents[0], rollout, Scaled(replicas=None), missing=frozenset(), last_scale=None
    )
    assert (facts.desired, facts.made) == (desired, deployment is not None)
