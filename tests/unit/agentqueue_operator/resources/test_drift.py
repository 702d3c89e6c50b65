"""Fields of the operator's objects that other managers have written."""

from typing import Any

import pytest

from agentqueue_operator.resources.comparison import MANAGER
from agentqueue_operator.resources.drift import Drift, find_drift
from agentqueue_operator.resources.plan import HANDOVER

Object = dict[str, Any]
WORKER = 'k:{"name":"worker"}'
MANIFEST: Object = {
    "spec": {
        "replicas": 1,
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "worker", "image": "a:1", "env": [{"name": "OURS", "value": "1"}]}]},
        },
    }
}


def containers(fields: Object) -> Object:
    return {"f:spec": {"f:template": {"f:spec": {"f:containers": {WORKER: fields}}}}}


OWN: Object = {
    "f:spec": {
        "f:replicas": {},
        "f:template": {
            "f:metadata": {"f:labels": {"f:a": {}}},
            **containers({".": {}, "f:name": {}, "f:image": {}, "f:env": {'k:{"name":"OURS"}': {"f:value": {}}}})[
                "f:spec"
            ]["f:template"],
        },
    }
}


def live(manager: str, fields: Object, *, own: Object = OWN, **entry: Any) -> Object:
    ours = {"manager": MANAGER, "operation": "Apply", "fieldsV1": own}
    return {
        "metadata": {"managedFields": [ours, {"manager": manager, "operation": "Update", "fieldsV1": fields, **entry}]}
    }


def without_replicas() -> Object:
    return {"f:spec": {key: value for key, value in OWN["f:spec"].items() if key != "f:replicas"}}


REPLICAS: Object = {"f:spec": {"f:replicas": {}}}
FOREIGN_ENV = containers({"f:env": {'k:{"name":"DEBUG"}': {".": {}, "f:name": {}, "f:value": {}}}})
IMAGE = containers({".": {}, "f:image": {}})


@pytest.mark.parametrize(
    ("given", "manifest", "expected"),
    [
        pytest.param(
            live("kubectl", REPLICAS, own=without_replicas(), subresource="scale"),
            MANIFEST,
            [Drift("spec.replicas", "kubectl", is_ours=True)],
            id="scaled-by-hand",
        ),
        pytest.param(
            live("kubectl", REPLICAS, own=without_replicas(), subresource="scale"),
            {"spec": {}},
            [],
            id="scaled-in-mode-external",
        ),
        pytest.param(live("kubectl", REPLICAS), MANIFEST, [], id="set-to-what-it-was"),
        pytest.param(
            live("kubectl-set", FOREIGN_ENV),
            MANIFEST,
            [Drift("spec.template.spec.containers[worker].env[DEBUG]", "kubectl-set", is_ours=False)],
            id="a-foreign-variable",
        ),
        pytest.param(
            live("kubectl-set", IMAGE, own=REPLICAS),
            MANIFEST,
            [Drift("spec.template.spec.containers[worker].image", "kubectl-set", is_ours=True)],
            id="another-image",
        ),
        pytest.param(
            live("kubectl-rollout", {"f:spec": {"f:template": {"f:metadata": {"f:annotations": {"f:x": {}}}}}}),
            MANIFEST,
            [],
            id="a-restart",
        ),
        pytest.param(live("argocd", {"f:metadata": {"f:annotations": {"f:x": {}}}}), MANIFEST, [], id="an-annotation"),
        pytest.param(live("kube-controller-manager", REPLICAS, subresource="status"), MANIFEST, [], id="a-status"),
        pytest.param(live(HANDOVER, REPLICAS, own={}), MANIFEST, [], id="our-own-handover"),
        pytest.param(
            live("kubectl-edit", {"f:data": {"f:mine": {}}}),
            {"data": {"url": "x"}},
            [Drift("data.mine", "kubectl-edit", is_ours=False)],
            id="data",
        ),
        pytest.param(
            live("kubectl-edit", {"f:spec": {"f:finalizers": {'v:"x"': {}}}}),
            {"spec": {"finalizers": ["y"]}},
            [Drift("spec.finalizers[x]", "kubectl-edit", is_ours=False)],
            id="an-item-of-a-set",
        ),
        pytest.param({"metadata": {}}, MANIFEST, [], id="nobody-manages-it"),
        pytest.param(live("kubectl", {}), MANIFEST, [], id="no-fields"),
    ],
)
def test_drift(given: Object, manifest: Object, expected: list[Drift]) -> None:
    assert list(find_drift(given, manifest, ours=(MANAGER, HANDOVER))) == expected
