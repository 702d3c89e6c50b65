"""Deployment tools judge an AgentQueue: kstatus (Flux, Helm 4), and Argo CD by the script in the docs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import LuaRuntime

from agentqueue.spec.crd import schema
from agentqueue_operator.controller.status.conditions import (
    AgentFacts,
    Facts,
    RedisFacts,
    blocked,
    paused,
    status_of,
    unreconciled_status,
)
from agentqueue_operator.controller.status.reasons import Problem, Reason
from tests.support.pages import Page

Object = dict[str, Any]
ROOT = Path(__file__).parents[5]
SCRIPT = "resource.customizations.health.agentqueue.dev_AgentQueue"
NOW = "2026-01-01T12:00:00Z"
GENERATION = 3
PULL = Problem(Reason.IMAGE_PULL_FAILED, "a:2: not found")
AGENT = AgentFacts(name="a", queue="a", deployment="q-a", made=True, desired=1, ready=1, needed=1, read=True)
WELL = Facts(generation=GENERATION, redis=RedisFacts(endpoint="r:6379", answers=True), agents=(AGENT,))


def agents(**given: Any) -> Facts:
    return replace(WELL, agents=(replace(AGENT, **given),))


def resource(status: Object | None, *, generation: int = GENERATION, annotations: Object | None = None) -> Object:
    metadata: Object = {"name": "q", "generation": generation}
    if annotations:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "status": status} if status is not None else {"metadata": metadata}


def shown(facts: Facts) -> Object:
    return resource(status_of(facts, None, now=NOW))


def kstatus(given: Object) -> str:
    """Judge a custom resource like cli-utils' kstatus: the generation first, then Reconciling, Stalled and Ready."""
    status = given.get("status") or {}
    if status.get("observedGeneration", given["metadata"]["generation"]) != given["metadata"]["generation"]:
        return "InProgress"
    found = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    return "Current" if found.get("Ready", "True") == "True" else "InProgress"


def argo_cd(given: Object) -> Mapping[str, str]:
    """Run the script of docs/operations.md as Argo CD does, with the resource as `obj`."""
    (text,) = [text for _, text in Page(ROOT / "docs" / "operations.md").blocks if SCRIPT in text]
    lua = LuaRuntime()
    lua.globals().obj = lua.table_from(given, recursive=True)
    found = lua.execute(yaml.safe_load(text)["data"][SCRIPT])
    return {"status": found.status, "message": found.message}


OLD = status_of(WELL, None, now=NOW)
NEW = schema()["properties"]["status"]["default"]
PAUSED = {"agentqueue.dev/paused": "true"}


@pytest.mark.parametrize(
    ("given", "by_kstatus", "by_argo_cd"),
    [
        pytest.param(shown(WELL), "Current", "Healthy", id="rolled-out"),
        pytest.param(shown(agents(desired=0, ready=0, needed=0)), "Current", "Healthy", id="waits-for-jobs-at-zero"),
        pytest.param(shown(agents(auto=False, desired=0, ready=0, waiting=1)), "Current", "Healthy", id="jobs-wait"),
        pytest.param(shown(agents(desired=3, ready=1)), "Current", "Healthy", id="scales"),
        pytest.param(shown(agents(desired=1, ready=3)), "Current", "Healthy", id="a-scale-in-waits-for-jobs"),
        pytest.param(
            shown(replace(agents(desired=0, ready=1), suspended=True)),
            "Current",
            "Healthy",
            id="suspended-and-drains",
        ),
        pytest.param(shown(replace(WELL, suspended=True)), "Current", "Healthy", id="suspended"),
        pytest.param(shown(agents(rolling_out=True)), "InProgress", "Progressing", id="rolls-out"),
        pytest.param(shown(agents(ready=0)), "InProgress", "Progressing", id="starts"),
        pytest.param(
            shown(agents(rolling_out=True, problem=PULL, newest_problem=PULL)),
            "Failed",
            "Degraded",
            id="a-wrong-image",
        ),
        pytest.param(
            shown(agents(desired=1, ready=0, needed=0, problem=PULL)),
            "Failed",
            "Degraded",
            id="found-by-the-first-job",
        ),
        pytest.param(
            resource(
                unreconciled_status(OLD, blocked(Problem(Reason.INVALID_SPEC)), generation=4, now=NOW),
                generation=4,
            ),
            "Failed",
            "Degraded",
            id="a-resource-that-breaks-rules",
        ),
        pytest.param(resource(OLD, generation=4), "InProgress", "Progressing", id="a-new-generation"),
        pytest.param(resource(NEW, generation=1), "InProgress", "Progressing", id="just-made"),
        pytest.param(
            resource(unreconciled_status(OLD, paused(), generation=4, now=NOW), generation=4, annotations=PAUSED),
            "InProgress",
            "Suspended",
            id="paused-with-a-new-generation",
        ),
        pytest.param(
            resource(unreconciled_status(OLD, paused(), generation=GENERATION, now=NOW), annotations=PAUSED),
            "Current",
            "Suspended",
            id="paused",
        ),
        pytest.param(
            resource({"observedGeneration": GENERATION}), "Current", "Progressing", id="a-status-without-conditions"
        ),
    ],
)
def test_deployment_tools_judge_the_status(given: Object, by_kstatus: str, by_argo_cd: str) -> None:
    assert (kstatus(given), argo_cd(given)["status"]) == (by_kstatus, by_argo_cd)


def test_argo_cd_shows_the_problem_and_its_remedy() -> None:
    said = argo_cd(shown(agents(rolling_out=True, newest_problem=PULL)))["message"]
    assert said.startswith("agent a: a:2: not found.")
    assert "imagePullSecrets" in said


def test_without_an_annotation_or_a_status_nothing_breaks() -> None:
    assert argo_cd(resource(None, annotations={"other": "x"})) == {
        "status": "Progressing",
        "message": "The operator has not acted on this generation yet.",
    }
