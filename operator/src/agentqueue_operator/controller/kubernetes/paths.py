"""Paths of objects in the Kubernetes API. The kinds are fixed, so no discovery is needed."""

from typing import Final
from urllib.parse import quote

from agentqueue_operator.resources import kinds
from agentqueue_operator.resources.kinds import Kind, Object

_BY_NAME: Final = {(kind.api_version, kind.kind): kind for kind in vars(kinds).values() if isinstance(kind, Kind)}
"""All kinds, by API version and name."""


def kind_of(manifest: Object) -> Kind:
    """Return the kind of a manifest. Raises KeyError for a kind that the operator does not use."""
    return _BY_NAME[manifest["apiVersion"], manifest["kind"]]


def collection(kind: Kind, namespace: str | None) -> str:
    """Return the path of all objects of a kind in a namespace, or in all namespaces (None)."""
    group = "/api" if "/" not in kind.api_version else "/apis"
    place = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{group}/{kind.api_version}{place}/{kind.plural}"


def one(kind: Kind, namespace: str, name: str) -> str:
    """Return the path of an object by its kind, namespace and name."""
    return f"{collection(kind, namespace)}/{quote(name, safe='')}"


def of(live: Object) -> str:
    """Return the path of an object."""
    return one(kind_of(live), live["metadata"]["namespace"], live["metadata"]["name"])
