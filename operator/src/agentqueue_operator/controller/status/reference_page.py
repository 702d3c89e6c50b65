"""Generates docs/reference/conditions.md: the conditions of an AgentQueue, and a remedy for each reason."""

from typing import Final

from agentqueue.spec import ConditionType
from agentqueue_operator.controller.status.reasons import Reason

MEANINGS: Final = {
    ConditionType.READY: (
        "this generation of the resource is rolled out: Redis answers, the agents and the console run their newest "
        "version, and each agent has its required workers. A suspended AgentQueue and one without jobs are Ready too."
    ),
    ConditionType.RECONCILING: "it is not Ready yet, and the operator or Kubernetes is working on it. (kstatus)",
    ConditionType.STALLED: "it is not Ready, and stays so until a user changes what the message names. (kstatus)",
    ConditionType.PROGRESSING: "a start, a rollout or scaling is in progress. False with a problem's reason: stuck.",
    ConditionType.REDIS_READY: "the operator reaches Redis, and Redis accepts jobs.",
    ConditionType.METRICS_AVAILABLE: "every queue can be read. Otherwise no agent is scaled down.",
    ConditionType.SCALING_ACTIVE: "the number of workers of each agent in scaling.mode Auto follows its queue.",
    ConditionType.PAUSED: 'a user requested it: by `spec.suspend` or the annotation `agentqueue.dev/paused: "true"`.',
    ConditionType.CONFIGURATION_WARNING: "something is wrong, or may not work as users expect.",
}
"""When each condition is True, as the end of a sentence."""
HEAD: Final = """# Conditions

Generated from the code: don't edit.

`kubectl get agentqueue NAME -o wide` shows reason and message of `Ready`; `kubectl describe agentqueue NAME` shows all
conditions and the events. Each message names the problem, in the words of the component that reported it, and a
remedy. `kubectl wait --for=condition=Ready agentqueue/NAME` waits until the AgentQueue is ready.

A condition recovers by itself when its cause is resolved: the operator reconciles each AgentQueue every 5 seconds, and
reads users' Secrets and ConfigMaps every minute. An agent requires `minReplicas` workers, in mode Fixed all of its
`replicas`.
"""
"""Introduction of the page."""


def conditions_page() -> str:
    """Return the text of the page."""
    conditions = [f"| `{kind}` | {MEANINGS[kind]} |" for kind in ConditionType]
    reasons = [f"| `{reason}` | {reason.remedy} |" for reason in sorted(Reason)]
    lines = [
        HEAD,
        "| Condition | It is True while |",
        "|---|---|",
        *conditions,
        "",
        "## Reasons",
        "",
        "| Reason | Remedy |",
        "|---|---|",
        *reasons,
        "",
    ]
    return "\n".join(lines)
