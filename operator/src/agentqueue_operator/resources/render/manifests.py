"""The whole of an AgentQueue's objects."""

from agentqueue.spec import ManagedRedis, ResolvedQueue
from agentqueue_operator.resources.kinds import Object
from agentqueue_operator.resources.render.console import console_objects
from agentqueue_operator.resources.render.inputs import RenderContext
from agentqueue_operator.resources.render.network import network_objects
from agentqueue_operator.resources.render.objects import finished
from agentqueue_operator.resources.render.redis import redis_objects
from agentqueue_operator.resources.render.workers import worker_objects


def render(queue: ResolvedQueue, context: RenderContext) -> tuple[Object, ...]:
    """Every object, in the order to apply them: Redis before the workers, the console last.

    Raises:
        InvalidSpec: a podTemplate that can't be laid over ours.
    """
    manifests = (
        *network_objects(queue, context),
        *(redis_objects(queue, queue.redis, context) if isinstance(queue.redis, ManagedRedis) else ()),
        *worker_objects(queue, context),
        *console_objects(queue, context),
    )
    return tuple(finished(manifest, queue.name, context) for manifest in manifests)
