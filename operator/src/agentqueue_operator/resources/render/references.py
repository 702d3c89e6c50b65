"""Which Secrets and ConfigMaps of the user the pods read at their start: what their content's hash is made over."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentqueue.spec import ManagedRedis, ResolvedQueue
from agentqueue_operator.resources.kinds import CONFIG_MAP, SECRET, Kind, Object
from agentqueue_operator.resources.render.connection import CA, CLIENT
from agentqueue_operator.resources.render.console import console_template
from agentqueue_operator.resources.render.inputs import RenderContext
from agentqueue_operator.resources.render.names import CONSOLE, REDIS, console_name, redis_name
from agentqueue_operator.resources.render.redis import redis_template
from agentqueue_operator.resources.render.workers import worker_template

READ_ANEW: Final = (CA, CLIENT)
"""Volumes whose files are read for each connection: a renewed certificate needs no restart."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """An object in the AgentQueue's namespace; it may not exist."""

    kind: Kind
    name: str


def references_of(queue: ResolvedQueue, context: RenderContext) -> Mapping[str, frozenset[Reference]]:
    """By agent, `redis` and `console`: what `RenderContext.content_hashes` is about. Own objects are left out.

    Raises:
        InvalidSpec: as `render`.
    """
    own = {Reference(kind, name(queue.name)) for kind in (SECRET, CONFIG_MAP) for name in (redis_name, console_name)}
    return {name: frozenset(_in_pod(template)) - own for name, template in _templates(queue, context)}


def _templates(queue: ResolvedQueue, context: RenderContext) -> Iterator[tuple[str, Object]]:
    for agent in queue.agents:
        yield agent.name, worker_template(queue, agent, context)
    if isinstance(queue.redis, ManagedRedis):
        yield REDIS, redis_template(queue, queue.redis, context)
    if queue.console.enabled:
        yield CONSOLE, console_template(queue, context)


def _in_pod(template: Object) -> Iterator[Reference]:
    """Any podTemplate may have been laid over it, so nothing is sure but that it is JSON."""
    spec = template.get("spec")
    volumes = [it for it in _list(_get(spec, "volumes")) if _get(it, "name") not in READ_ANEW]
    containers = [*_list(_get(spec, "containers")), *_list(_get(spec, "initContainers"))]
    for found in (*_in_volumes(volumes), *_in_variables(containers)):
        if isinstance(found.name, str):
            yield found


def _in_volumes(volumes: Sequence[Any]) -> Iterator[Reference]:
    for volume in volumes:
        yield Reference(SECRET, _get(volume, "secret", "secretName"))
        yield Reference(CONFIG_MAP, _get(volume, "configMap", "name"))
        for source in _list(_get(volume, "projected", "sources")):
            yield Reference(SECRET, _get(source, "secret", "name"))
            yield Reference(CONFIG_MAP, _get(source, "configMap", "name"))


def _in_variables(containers: Sequence[Any]) -> Iterator[Reference]:
    for container in containers:
        for variable in _list(_get(container, "env")):
            yield Reference(SECRET, _get(variable, "valueFrom", "secretKeyRef", "name"))
            yield Reference(CONFIG_MAP, _get(variable, "valueFrom", "configMapKeyRef", "name"))
        for source in _list(_get(container, "envFrom")):
            yield Reference(SECRET, _get(source, "secretRef", "name"))
            yield Reference(CONFIG_MAP, _get(source, "configMapRef", "name"))


def _get(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
