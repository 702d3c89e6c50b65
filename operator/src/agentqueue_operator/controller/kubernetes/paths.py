"""Addresses of objects. The kinds are fixed, so there is no discovery."""

from typing import Final
from urllib.parse import quote

from agentqueue_operator.resources import kinds
from agentqueue_operator.resources.kinds import Kind, Object

_BY_NAME: Final = {
    (kind.api_version, kind.kind): kind for kind in vars(kinds).values() if isinstance(kind, Kind)
}  # all that there are


def kind_of(manifest: Object) -> Kind:
    """Raises KeyError for a kind that the operator does not deal with."""
    return _BY_NAME[manifest["apiVersion"], manifest["kind"]]


def collection(kind: Kind, namespace: str | None) -> str:
    """Of all objects of a kind in a namespace, or in all of them."""
    group = "/api" if "/" not in kind.api_version else "/apis"
    place = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{group}/{kind.api_version}{place}/{kind.plural}"


def one(kind: Kind, namespace: str, name: str) -> str:
    """Of an object."""
    return f"{collection(kind, namespace)}/{quote(name, safe='')}"


def of(live: Object) -> str:
    """Of an object that is at hand."""
    return one(kind_of(live), live["metadata"]["namespace"], live["metadata"]["name"])
