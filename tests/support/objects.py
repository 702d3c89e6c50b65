"""Kubernetes objects for unit tests, as small as what is tested lets them be."""

import json
from typing import Any

from agentqueue_operator.resources.comparison import HASH_ANNOTATION

Object = dict[str, Any]

OWNER: Object = {
    "apiVersion": "agentqueue.dev/v1alpha1",
    "kind": "AgentQueue",
    "metadata": {"name": "q", "namespace": "n", "uid": "owner", "generation": 1},
}
REFERENCE: Object = {"apiVersion": "agentqueue.dev/v1alpha1", "kind": "AgentQueue", "name": "q", "uid": "owner"}
VERSIONS = {"Deployment": "apps/v1", "StatefulSet": "apps/v1", "NetworkPolicy": "networking.k8s.io/v1"}


def child(kind: str, name: str, *, hash: str = "1", **content: Any) -> Object:  # noqa: A002
    """A manifest as it is rendered."""
    metadata = {"name": name, "namespace": "n", "annotations": {HASH_ANNOTATION: hash}, "ownerReferences": [REFERENCE]}
    return {"apiVersion": VERSIONS.get(kind, "v1"), "kind": kind, "metadata": metadata, **content}


def owned_by(given: Object, uid: str = "owner") -> Object:
    """Live, and somebody's."""
    metadata = {**given["metadata"], "uid": f"uid-{given['metadata']['name']}", "resourceVersion": "1"}
    return {**given, "metadata": {**metadata, "ownerReferences": [REFERENCE | {"uid": uid}]}}


def applied(manifest: Object) -> Object:
    """What a manifest becomes when we have applied it."""
    metadata = {
        name: value for name, value in manifest["metadata"].items() if name in ("annotations", "ownerReferences")
    }
    content = {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind", "metadata")}
    fields = _fields({**content, "metadata": metadata})
    live = owned_by(json.loads(json.dumps(manifest)))
    live["metadata"]["managedFields"] = [
        {"manager": "agentqueue-operator", "operation": "Apply", "fieldsV1": fields},
        {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {}},
    ]
    return live


def _fields(value: Any) -> Object:
    return {f"f:{name}": _fields(inner) for name, inner in value.items()} if isinstance(value, dict) else {}
