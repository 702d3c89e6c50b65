"""Group an AgentQueue's live objects by the part that they belong to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentqueue_operator.resources.kinds import DEPLOYMENT, POD, Object
from agentqueue_operator.resources.plan import is_owned
from agentqueue_operator.resources.render.names import AGENT_LABEL, CONTENT_ANNOTATION, object_name, worker_name


@dataclass(frozen=True, slots=True)
class AgentChildren:
    """The live objects of one agent."""

    deployment: Object | None
    """None if the Deployment does not exist or the AgentQueue does not own it."""
    pods: Sequence[Object]


def agent_children(
    queue: str, agents: Iterable[str], children: Sequence[Object], owner: Object
) -> dict[str, AgentChildren]:
    """Return the live objects of each agent, by agent name."""
    deployments = {child["metadata"]["name"]: child for child in children if child["kind"] == DEPLOYMENT.kind}
    pods: dict[str, list[Object]] = {}
    for child in children:
        if child["kind"] == POD.kind:
            pods.setdefault((child["metadata"].get("labels") or {}).get(AGENT_LABEL, ""), []).append(child)
    found = {agent: deployments.get(worker_name(queue, agent)) for agent in agents}
    return {
        agent: AgentChildren(one if one is not None and is_owned(one, owner) else None, pods.get(agent, []))
        for agent, one in found.items()
    }


def last_content_hash(queue: str, part: str, children: Iterable[Object]) -> str | None:
    """Return the hash of the user's Secrets and ConfigMaps that the pods of a part were last rendered with.

    Args:
        queue: name of the AgentQueue.
        part: name of an agent, or `redis` or `console`.
        children: live objects of the AgentQueue.

    Returns:
        None if the part has no workload yet, or its pod template has no hash.
    """
    for child in children:
        if child["metadata"]["name"] == object_name(queue, part) and "template" in child.get("spec", {}):
            found = (child["spec"]["template"]["metadata"].get("annotations") or {}).get(CONTENT_ANNOTATION)
            return None if found is None else str(found)
    return None
