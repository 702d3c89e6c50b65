"""Each rule of the resource, checked offline: refused resources with their locations, and valid ones close to them."""

from typing import Any

import pytest

from agentqueue.keys import RESERVED_PARTS, RESERVED_PREFIXES
from agentqueue.spec import check
from agentqueue.spec.problems import Path, dotted
from agentqueue.spec.resource import AgentQueueSpec
from agentqueue.spec.rules import RULES
from tests.support import resources

MESSAGES = {rule.name: rule.message for rule in RULES}
OF_AGENTS = {rule.name for rule in RULES if rule.message_cel is not None}
"""Names of the rules on `spec` that apply to each agent."""


def refusals() -> list[Any]:
    return [
        pytest.param(name, data, path, id=f"{name}-{n}")
        for name, cases in resources.RULES.items()
        for n, (data, path) in enumerate(cases.refused)
    ]


def acceptances() -> list[Any]:
    return [
        pytest.param(data, id=f"{name}-{n}")
        for name, cases in resources.RULES.items()
        for n, data in enumerate(cases.accepted)
    ]


@pytest.mark.parametrize(("name", "data", "path"), refusals())
def test_what_breaks_a_rule_is_refused_with_its_path_and_message(name: str, data: Any, path: str) -> None:
    problems = check(data)
    assert path in [dotted(problem.path) for problem in problems]
    assert {problem.message.removeprefix(_named(name, data, problem.path)) for problem in problems} == {MESSAGES[name]}


def _named(rule: str, data: Any, path: Path) -> str:
    """Return the agent's name that begins the message of a rule on `spec`, and nothing for other rules."""
    if rule not in OF_AGENTS:
        return ""
    assert isinstance(path[2], int)
    return f"agent {data['spec']['agents'][path[2]]['name']}: "


def test_rules_on_merged_values_name_the_agent() -> None:
    """Rules that compare an agent's fields with others or with agentDefaults are attached to `spec`."""
    at_spec = {rule.name for rule in RULES if rule.on is AgentQueueSpec}
    assert at_spec - OF_AGENTS == {"default-dead-letters-go-to-an-agent"}
    assert [str(problem) for problem in check(resources.scaled(minReplicas=11))] == [
        f"spec.agents[0].scaling.minReplicas: agent a: {MESSAGES['min-is-not-above-max']}"
    ]


@pytest.mark.parametrize("data", acceptances())
def test_a_resource_that_narrowly_keeps_the_rule_passes(data: Any) -> None:
    assert check(data) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "path"),
    [(name, *case) for name, cases in resources.CHANGES.items() for case in cases.refused],
)
def test_a_forbidden_change_is_refused(name: str, old: Any, new: Any, path: str) -> None:
    assert check(new) == [], "it must be the change that is wrong"
    assert [(dotted(problem.path), problem.message) for problem in check(new, old)] == [(path, MESSAGES[name])]


@pytest.mark.parametrize(("old", "new"), [case for cases in resources.CHANGES.values() for case in cases.accepted])
def test_an_allowed_change_passes(old: Any, new: Any) -> None:
    assert check(new, old) == []


def test_every_rule_has_cases() -> None:
    assert {rule.name for rule in RULES} == set(resources.RULES) | set(resources.CHANGES)
    assert {rule.name for rule in RULES if rule.transition} == set(resources.CHANGES)


def test_rule_messages_are_short_enough_and_on_one_line() -> None:
    assert [rule.name for rule in RULES if len(rule.message) > 512 or "\n" in rule.message] == []


@pytest.mark.parametrize("part", sorted(RESERVED_PARTS))
def test_no_part_of_our_own_keys_may_be_in_a_queue_name(part: str) -> None:
    (problem,) = check(resources.agent(queueName=f"q:{part}:x"))
    assert problem.message == MESSAGES["queue-name-is-free"]


@pytest.mark.parametrize("prefix", RESERVED_PREFIXES)
def test_no_prefix_of_our_own_keys_may_begin_a_queue_name(prefix: str) -> None:
    (problem,) = check(resources.agent(queueName=f"{prefix}x"))
    assert problem.message == MESSAGES["queue-name-is-free"]


def test_the_largest_resource_passes() -> None:
    assert check(resources.many_agents()) == []


def test_all_broken_rules_are_reported() -> None:
    data = resources.agent(scaling={"minReplicas": 11}, queueName="b", onDeadLetter={"agent": "x"})
    assert {dotted(problem.path) for problem in check(data)} == {
        "spec.agents[0].scaling.minReplicas",
        "spec.agents[1].name",
        "spec.agents[0].onDeadLetter.agent",
    }


def test_a_rule_is_skipped_if_an_unknown_key_may_be_the_cause() -> None:
    data = resources.agent(scaling={"mode": "Fixed", "replcas": 2}, queueName="b")
    assert [dotted(problem.path) for problem in check(data)] == [
        "spec.agents[0].scaling.replcas",
        "spec.agents[1].name",
    ]


def test_rules_are_skipped_for_a_resource_with_invalid_types() -> None:
    data = resources.resource(agents=[{"name": "redis"}, {"name": "a", "handler": "m:a", "queueName": "redis"}])
    assert [str(problem) for problem in check(data)] == ["spec.agents[0].handler: is required"]


def test_null_is_absence_for_rules_too() -> None:
    assert check(resources.agent(scaling={"mode": "Auto", "replicas": None}, onDeadLetter=None)) == []
    assert check(resources.resource(redis={"managed": None, "external": {"urlSecretRef": {"name": "s"}}})) == []
