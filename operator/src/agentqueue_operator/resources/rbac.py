"""What the operator may do in a cluster, declared once: the chart's and the manifests' Roles are made from it.

A test records what the operator does, and compares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentqueue_operator.resources import kinds
from agentqueue_operator.resources.kinds import Kind

READ: Final = ("get", "list", "watch")
WRITE: Final = ("create", "patch", "delete")
"""Server-side apply is a patch, and a create where there was nothing."""


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs on a resource of an API group ('' is the core group)."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str

    @classmethod
    def on(cls, kind: Kind, *verbs: str, why: str, part: str = "") -> "Right":
        """On a kind's objects, or on a part of them (`status`)."""
        return cls(kind.group, f"{kind.plural}/{part}" if part else kind.plural, verbs, why)


OWN: Final = (Right.on(kinds.LEASE, "get", "create", "update", why="one of several replicas leads"),)
"""In the namespace that the operator runs in."""


def rights(*, read_secrets: bool) -> Sequence[Right]:
    """In every namespace whose AgentQueues it serves.

    Args:
        read_secrets: without it no Secret is listed or watched; those that the operator makes, and those that hold an
            address or a password of Redis, are still read, each by its name.
    """
    secrets = (*READ, *WRITE) if read_secrets else ("get", *WRITE)
    return (
        Right.on(kinds.AGENT_QUEUE, *READ, why="what is wanted"),
        Right.on(kinds.AGENT_QUEUE, "patch", part="status", why="conditions and numbers"),
        Right.on(kinds.DEPLOYMENT, *READ, *WRITE, why="workers and consoles"),
        Right.on(kinds.REPLICA_SET, "get", why="whether a scale-in has been carried out"),
        Right.on(kinds.STATEFUL_SET, *READ, *WRITE, why="managed Redis servers"),
        Right.on(kinds.SERVICE, *READ, *WRITE, why="addresses of Redis servers and consoles"),
        Right.on(kinds.SERVICE_ACCOUNT, *READ, *WRITE, why="pods run without rights of their own"),
        Right.on(
            kinds.CONFIG_MAP, *READ, *WRITE, why="Redis's configuration; users' code, whose changes roll the pods"
        ),
        Right.on(kinds.SECRET, *secrets, why="generated passwords; users' Secrets, whose changes roll the pods"),
        Right.on(kinds.NETWORK_POLICY, *READ, *WRITE, why="who may reach Redis and the console"),
        Right.on(kinds.DISRUPTION_BUDGET, *READ, *WRITE, why="pods that a drain may take away"),
        Right.on(kinds.POD_MONITOR, *READ, *WRITE, why="metrics, where Prometheus' operator is installed"),
        Right.on(kinds.POD, *READ, "patch", why="their state; the cost of deleting one, before scaling in"),
        Right.on(kinds.VOLUME_CLAIM, "get", "patch", why="larger storage for Redis"),
        Right.on(kinds.EVENT, "create", "patch", why="what happened, for kubectl describe"),
    )
