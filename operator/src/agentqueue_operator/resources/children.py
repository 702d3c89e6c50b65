"""An AgentQueue's live objects, sorted by what they belong to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentqueue_operator.resources.kinds import DEPLOYMENT, POD, Object
from agentqueue_operator.resources.plan import is_owned
from agentqueue_operator.resources.render.names import AGENT_LABEL, CONTENT_ANNOTATION, object_name, worker_name


@dataclass(frozen=True, slots=True)
class AgentParts:
    """An agent's Deployment, if the AgentQueue owns it, and the pods."""

    deployment: Object | None
    pods: Sequence[Object]


def agent_parts(queue: str, agents: Iterable[str], children: Sequence[Object], owner: Object) -> dict[str, AgentParts]:
    """Each agent's."""
    deployments = {one["metadata"]["name"]: one for one in children if one["kind"] == DEPLOYMENT.kind}
    pods: dict[str, list[Object]] = {}
    for child in children:
        if child["kind"] == POD.kind:
            pods.setdefault((child["metadata"].get("labels") or {}).get(AGENT_LABEL, ""), []).append(child)
    found = {agent: deployments.get(worker_name(queue, agent)) for agent in agents}
    return {
        agent: AgentParts(one if one is not None and is_owned(one, owner) else None, pods.get(agent, []))
        for agent, one in found.items()
    }


def last_content(queue: str, part: str, children: Iterable[Object]) -> str | None:
    """The hash over the user's Secrets and ConfigMaps that an agent's, Redis's or the console's pods were made with."""
    for child in children:
        if child["metadata"]["name"] == object_name(queue, part) and "template" in child.get("spec", {}):
            found = (child["spec"]["template"]["metadata"].get("annotations") or {}).get(CONTENT_ANNOTATION)
            return None if found is None else str(found)
    return None
