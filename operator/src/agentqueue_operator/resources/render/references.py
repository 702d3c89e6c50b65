"""Find the user's Secrets and ConfigMaps that pods read at their start. The content hash covers these."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentqueue.spec import ManagedRedis, ResolvedQueue
from agentqueue_operator.resources.kinds import CONFIG_MAP, SECRET, Kind
from agentqueue_operator.resources.render.connection import CA, CLIENT
from agentqueue_operator.resources.render.console import console_template
from agentqueue_operator.resources.render.inputs import RenderContext
from agentqueue_operator.resources.render.names import CONSOLE, REDIS, console_name, redis_name
from agentqueue_operator.resources.render.redis import redis_template
from agentqueue_operator.resources.render.workers import worker_template

REREAD_VOLUMES: Final = (CA, CLIENT)
"""Volumes whose files are read for each connection, so that a renewed certificate needs no restart."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A reference to an object in the AgentQueue's namespace, which may not exist."""

    kind: Kind
    name: str


def references_of(queue: ResolvedQueue, context: RenderContext) -> Mapping[str, frozenset[Reference]]:
    """Return the references of each agent, of `redis` and of `console`. The operator's own objects are left out.

    Raises:
        InvalidSpec: a podTemplate can't be merged.
    """
    own = {Reference(kind, name(queue.name)) for kind in (SECRET, CONFIG_MAP) for name in (redis_name, console_name)}
    templates = {agent.name: worker_template(queue, agent, context) for agent in queue.agents}
    if isinstance(queue.redis, ManagedRedis):
        templates[REDIS] = redis_template(queue, queue.redis, context)
    if queue.console.enabled:
        templates[CONSOLE] = console_template(queue, context)
    return {
        name: frozenset(
            Reference(kind, found) for kind, found in _references_in(template.get("spec")) if isinstance(found, str)
        )
        - own
        for name, template in templates.items()
    }


def _references_in(spec: Any) -> Iterator[tuple[Kind, Any]]:
    """Yield the kind and name of all that a pod refers to. A podTemplate may have made any JSON of the spec."""
    for volume in _list(_get(spec, "volumes")):
        if _get(volume, "name") in REREAD_VOLUMES:
            continue
        yield SECRET, _get(volume, "secret", "secretName")
        yield CONFIG_MAP, _get(volume, "configMap", "name")
        for source in _list(_get(volume, "projected", "sources")):
            yield SECRET, _get(source, "secret", "name")
            yield CONFIG_MAP, _get(source, "configMap", "name")
    for container in (*_list(_get(spec, "containers")), *_list(_get(spec, "initContainers"))):
        for variable in _list(_get(container, "env")):
            yield SECRET, _get(variable, "valueFrom", "secretKeyRef", "name")
            yield CONFIG_MAP, _get(variable, "valueFrom", "configMapKeyRef", "name")
        for source in _list(_get(container, "envFrom")):
            yield SECRET, _get(source, "secretRef", "name")
            yield CONFIG_MAP, _get(source, "configMapRef", "name")


def _get(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
