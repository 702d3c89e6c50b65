"""Build objects: kind, metadata, owner reference and hash."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from agentqueue_operator.resources.kinds import AGENT_QUEUE, Kind, Object
from agentqueue_operator.resources.render.inputs import RenderContext
from agentqueue_operator.resources.render.names import HASH_ANNOTATION


def new_object(kind: Kind, name: str, marks: Mapping[str, str], **content: Any) -> Object:
    """Return an object of that kind, with these labels."""
    metadata = {"name": name, "labels": dict(marks)}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **content}


def with_common_metadata(manifest: Object, queue: str, context: RenderContext) -> Object:
    """Return the manifest with its namespace, its owner reference and the annotation with its hash."""
    metadata = {**manifest["metadata"], "namespace": context.namespace}
    if context.owner is not None:
        owner = {
            "apiVersion": AGENT_QUEUE.api_version,
            "kind": AGENT_QUEUE.kind,
            "name": queue,
            "uid": context.owner,
            "controller": True,
            "blockOwnerDeletion": False,  # true requires permission to update finalizers, and nothing waits for it
        }
        metadata["ownerReferences"] = [owner]
    whole = {**manifest, "metadata": metadata}
    marked = {**metadata, "annotations": {**metadata.get("annotations", {}), HASH_ANNOTATION: digest(whole)}}
    return {**manifest, "metadata": marked}


def digest(value: Any) -> str:
    """Return a hash of a JSON value, 16 hex digits."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def encode_data(data: Mapping[str, str]) -> dict[str, str]:
    """Return a Secret's `data`. The API server does not store `stringData`, so a comparison would always differ."""
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
