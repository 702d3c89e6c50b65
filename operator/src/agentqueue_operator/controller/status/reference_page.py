"""docs/reference/conditions.md: the conditions of an AgentQueue, and what to do about each reason."""

from collections.abc import Iterator
from typing import Final

from agentqueue.spec import ConditionType
from agentqueue_operator.controller.status.reasons import REMEDIES, Reason

MEANINGS: Final = {
    ConditionType.READY: (
        "this generation of the resource is rolled out: Redis answers, the agents and the console run their newest "
        "version, and each agent has the workers that it needs. One that is suspended or has no jobs is Ready too."
    ),
    ConditionType.RECONCILING: "it is not Ready, and on its way there. (kstatus)",
    ConditionType.STALLED: "it is not Ready, and stays so until somebody changes what the message names. (kstatus)",
    ConditionType.PROGRESSING: "a start, a rollout or scaling is on its way. False with a trouble's reason: stuck.",
    ConditionType.REDIS_READY: "the operator reaches Redis, and it takes jobs.",
    ConditionType.METRICS_AVAILABLE: "every queue can be read; without that nothing is scaled down.",
    ConditionType.SCALING_ACTIVE: "the number of workers of each agent in scaling.mode Auto follows its queue.",
    ConditionType.PAUSED: 'somebody wants it so: `spec.suspend`, or the annotation `agentqueue.dev/paused: "true"`.',
    ConditionType.CONFIGURATION_WARNING: "something is not as it should be, or not as one may think.",
}
HEAD: Final = """# Conditions

Generated from the code: don't edit.

`kubectl get agentqueue NAME -o wide` shows reason and message of `Ready`; `kubectl describe agentqueue NAME` shows all
conditions, and the events of what happened. Each message says what is wrong, in the words of whoever noticed it, and
what to do. `kubectl wait --for=condition=Ready agentqueue/NAME` waits until all is well.

A condition heals by itself when its cause is gone: the operator looks at each AgentQueue every 5 seconds, and at
users' Secrets and ConfigMaps every minute. An agent needs `minReplicas` workers, in mode Fixed all of its `replicas`.
"""


def conditions_page() -> str:
    """The page's text."""
    return "\n".join((HEAD, *_conditions(), "", *_reasons(), ""))


def _conditions() -> Iterator[str]:
    yield "| Condition | It is True while |"
    yield "|---|---|"
    yield from (f"| `{kind}` | {MEANINGS[kind]} |" for kind in ConditionType)


def _reasons() -> Iterator[str]:
    yield "## Reasons"
    yield ""
    yield "| Reason | What to do |"
    yield "|---|---|"
    yield from (f"| `{reason}` | {REMEDIES[reason]} |" for reason in sorted(Reason))
