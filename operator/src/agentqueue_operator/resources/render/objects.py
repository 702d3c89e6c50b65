"""How each object begins, and what is put onto it last."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from agentqueue_operator.resources.kinds import AGENT_QUEUE, Kind, Object
from agentqueue_operator.resources.render.inputs import RenderContext
from agentqueue_operator.resources.render.names import HASH_ANNOTATION


def made(kind: Kind, name: str, marks: Mapping[str, str], **content: Any) -> Object:
    """An object of that kind, with these labels."""
    metadata = {"name": name, "labels": dict(marks)}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **content}


def finished(manifest: Object, queue: str, context: RenderContext) -> Object:
    """With namespace, owner and the hash of it all."""
    metadata = {**manifest["metadata"], "namespace": context.namespace}
    if context.owner is not None:
        metadata["ownerReferences"] = [_owner(queue, context.owner)]
    whole = {**manifest, "metadata": metadata}
    marked = {**metadata, "annotations": {**metadata.get("annotations", {}), HASH_ANNOTATION: digest(whole)}}
    return {**manifest, "metadata": marked}


def _owner(queue: str, uid: str) -> Object:
    return {
        "apiVersion": AGENT_QUEUE.api_version,
        "kind": AGENT_QUEUE.kind,
        "name": queue,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,  # true would need the right to update finalizers, and nothing waits for it
    }


def digest(value: Any) -> str:
    """16 hex digits that tell one JSON value from another."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def encoded(data: Mapping[str, str]) -> dict[str, str]:
    """A Secret's `data`. Not `stringData`: the API server keeps none, so a live object would never look applied."""
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
