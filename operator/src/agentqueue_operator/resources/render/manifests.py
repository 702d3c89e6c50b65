"""Render all objects of an AgentQueue."""

from agentqueue.spec import ManagedRedis, ResolvedQueue
from agentqueue_operator.resources.kinds import Object
from agentqueue_operator.resources.render.console import console_objects
from agentqueue_operator.resources.render.inputs import RenderContext
from agentqueue_operator.resources.render.network import network_objects
from agentqueue_operator.resources.render.objects import with_common_metadata
from agentqueue_operator.resources.render.redis import redis_objects
from agentqueue_operator.resources.render.workers import worker_objects


def render(queue: ResolvedQueue, context: RenderContext) -> tuple[Object, ...]:
    """Return every object, Redis before the workers and the console last.

    Raises:
        InvalidSpec: a podTemplate can't be merged.
    """
    manifests = (
        *network_objects(queue, context),
        *(redis_objects(queue, queue.redis, context) if isinstance(queue.redis, ManagedRedis) else ()),
        *worker_objects(queue, context),
        *console_objects(queue, context),
    )
    return tuple(with_common_metadata(manifest, queue.name, context) for manifest in manifests)
