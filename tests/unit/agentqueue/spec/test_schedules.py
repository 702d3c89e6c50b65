"""Schedules of the resource: what is refused and with which words, the defaults, and what a queue gets."""

import re
from typing import Any

import pytest

from agentqueue.model.new_job import NO_PAYLOAD
from agentqueue.model.schedule import Missed, Schedule
from agentqueue.spec import AgentQueue, check, resolve
from agentqueue.spec.base import CRON
from agentqueue.spec.schedules import MAX_SCHEDULES
from tests.support.resources import agent, scheduled

NIGHTLY = {"name": "nightly", "cron": "0 3 * * *", "job": "report"}


@pytest.mark.parametrize(
    ("settings", "path", "message"),
    [
        ({"cron": "61 * * * *"}, ".cron", "must be a cron expression: minute hour day month weekday, and before them"),
        ({"cron": "often, please"}, ".cron", 'as in "30 9 * * 1-5"; is "often, please"'),
        ({"cron": "0 0 30 2 *"}, ".cron", "'0 0 30 2 *' is not a cron expression that ever comes"),
        ({"cron": "5-1 * * * *"}, ".cron", "'5-1 * * * *' is not a cron expression that ever comes (Bad minute)"),
        ({"timezone": "Mars/Base"}, ".timezone", "must be the IANA name of a time zone: write a name such as Europe/"),
        ({"timezone": "+02:00"}, ".timezone", 'must be an IANA time zone, as in Europe/Berlin or UTC; is "+02:00"'),
        ({"data": {"text": "x" * 70_000}}, ".data", "the data has 70,011 bytes, over the limit of 64,512"),
        ({"missed": "never"}, ".missed", "must be 'skip', 'one' or 'all', is \"never\""),
        ({"name": "Nightly"}, ".name", 'as in flight-search; is "Nightly"'),
        ({"job": "a report"}, ".job", 'dots, colons and dashes, as in send-report; is "a report"'),
        ({"every": "1h"}, ".every", "unknown key; known here: name, cron, timezone, job, data, missed, suspend"),
    ],
)
def test_a_wrong_schedule_is_refused_at_its_field(settings: dict[str, Any], path: str, message: str) -> None:
    (problem,) = check(scheduled(**settings))
    assert str(problem).startswith(f"spec.agents[0].schedules[0]{path}: ")
    assert message in str(problem)


def test_two_schedules_of_an_agent_have_two_names() -> None:
    (problem,) = check(agent(schedules=[NIGHTLY, NIGHTLY]))
    assert str(problem) == 'spec.agents[0].schedules[1].name: is twice in the list: "nightly"'


def test_an_agent_has_a_bounded_number_of_schedules() -> None:
    many = [NIGHTLY | {"name": f"s-{number}"} for number in range(MAX_SCHEDULES + 1)]
    assert check(agent(schedules=many[:-1])) == []
    (problem,) = check(agent(schedules=many))
    assert "must have at most 32 items, has 33" in str(problem)


def test_a_queue_gets_the_schedules_of_its_agent_with_their_defaults() -> None:
    full = {"timezone": "Europe/Berlin", "data": {"topics": [None, 1.5]}, "missed": "all", "suspend": True}
    resource = agent(schedules=[NIGHTLY, {**NIGHTLY, "name": "weekly", **full}])
    first, second = resolve(AgentQueue.model_validate(resource)).agents
    assert first.schedules == (
        Schedule(name="nightly", cron="0 3 * * *", job="report", timezone="UTC", data=NO_PAYLOAD, missed=Missed.ONE),
        Schedule(
            name="weekly",
            cron="0 3 * * *",
            job="report",
            timezone="Europe/Berlin",
            data={"topics": [None, 1.5]},
            missed=Missed.ALL,
            suspend=True,
        ),
    )
    assert second.schedules == ()


@pytest.mark.parametrize(
    ("cron", "is_one"),
    [
        ("* * * * *", True),
        ("*/5 0,12 1-7 JAN,mar-may MON-FRI", True),
        ("*/2 * * * * *", True),
        ("0 0 L * *", True),
        ("0 0 LW * *", True),
        ("0 0 * * fri#2", True),
        ("0 0 * * 5L", True),
        ("59 23 31 12 7", True),
        ("60 * * * *", False),
        ("* 24 * * *", False),
        ("* * 0 * *", False),
        ("* * * 13 *", False),
        ("* * * * 8", False),
        ("*/0 * * * *", False),
        ("* * * *", False),
        ("* * * * * * *", False),
        ("@daily", False),
    ],
)
def test_the_api_servers_pattern_knows_cron_expressions(cron: str, is_one: bool) -> None:
    assert (re.search(CRON, cron) is not None) == is_one
    assert (check(scheduled(cron=cron)) == []) == is_one
