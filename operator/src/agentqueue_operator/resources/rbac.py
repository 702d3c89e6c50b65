"""RBAC rules of the operator. The Roles of the chart and of manifests/install are generated from them.

A test records the operator's requests and compares them with these rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentqueue_operator.resources import kinds
from agentqueue_operator.resources.kinds import Kind

READ: Final = ("get", "list", "watch")
"""Verbs of a watch with its initial list."""
WRITE: Final = ("create", "patch", "delete")
"""Verbs of server-side apply and deletion. An apply is a patch, and also a create if the object does not exist."""


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """Verbs on a resource of an API group. The empty group is the core group."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str

    @classmethod
    def on(cls, kind: Kind, *verbs: str, why: str, subresource: str = "") -> "PolicyRule":
        """Return a rule on the objects of a kind, or on a subresource such as `status`."""
        return cls(kind.group, f"{kind.plural}/{subresource}" if subresource else kind.plural, verbs, why)


LEADER_ELECTION_RULES: Final = (
    PolicyRule.on(kinds.LEASE, "get", "create", "update", why="leader election among replicas"),
)
"""Rules in the namespace that the operator runs in."""


def namespace_rules(*, read_secrets: bool) -> Sequence[PolicyRule]:
    """Return the rules in every namespace whose AgentQueues the operator serves.

    Args:
        read_secrets: False if the operator may not list or watch Secrets. It still reads the Secrets that it creates
            and those that hold an address or a password of Redis, by name.
    """
    secrets = (*READ, *WRITE) if read_secrets else ("get", *WRITE)
    return (
        PolicyRule.on(kinds.AGENT_QUEUE, *READ, why="the desired state"),
        PolicyRule.on(kinds.AGENT_QUEUE, "patch", subresource="status", why="conditions and counts"),
        PolicyRule.on(kinds.DEPLOYMENT, *READ, *WRITE, why="workers and consoles"),
        PolicyRule.on(kinds.REPLICA_SET, "get", why="check that a scale-in is done"),
        PolicyRule.on(kinds.STATEFUL_SET, *READ, *WRITE, why="managed Redis servers"),
        PolicyRule.on(kinds.SERVICE, *READ, *WRITE, why="addresses of Redis servers and consoles"),
        PolicyRule.on(kinds.SERVICE_ACCOUNT, *READ, *WRITE, why="pods without any permissions"),
        PolicyRule.on(
            kinds.CONFIG_MAP, *READ, *WRITE, why="Redis's configuration; users' code, to roll pods on changes"
        ),
        PolicyRule.on(kinds.SECRET, *secrets, why="generated passwords; users' Secrets, to roll pods on changes"),
        PolicyRule.on(kinds.NETWORK_POLICY, *READ, *WRITE, why="access to Redis and the console"),
        PolicyRule.on(kinds.DISRUPTION_BUDGET, *READ, *WRITE, why="limits on evictions"),
        PolicyRule.on(kinds.POD_MONITOR, *READ, *WRITE, why="metrics, if the Prometheus Operator is installed"),
        PolicyRule.on(kinds.POD, *READ, "patch", why="the state of pods; their deletion cost before a scale-in"),
        PolicyRule.on(kinds.VOLUME_CLAIM, "get", "patch", why="larger storage for Redis"),
        PolicyRule.on(kinds.EVENT, "create", "patch", why="events for kubectl describe"),
    )
