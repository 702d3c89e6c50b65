"""The gate on costs: what counts as a rise, and what it says."""

import pytest

from tests.support.costs.program import CASES
from tests.support.costs.record import least, read, rises


def test_a_rise_names_the_count_with_its_old_and_its_new_value() -> None:
    found = {"commands": 2.8, "script_lines": 100.0}
    recorded = {"commands": 2.5, "script_lines": 98.0}
    assert rises("noop-100", found, recorded) == ["noop-100: commands per job rose from 2.5 to 2.8"]


def test_an_idle_worker_may_poll_once_more() -> None:
    assert rises("idle", {"commands": 44.0}, {"commands": 39.4}) == []
    assert rises("idle", {"commands": 46.0}, {"commands": 39.4}) == ["idle: commands per second rose from 39.4 to 46"]


def test_a_count_without_a_record_is_no_count_that_may_be_anything() -> None:
    assert rises("noop-1", {"calls": 1.0}, {}) == ["noop-1: calls has no record"]


def test_the_least_of_several_measurements_decides_count_by_count() -> None:
    assert least({"commands": 3.0, "calls": 90.0}, {"commands": 2.0, "calls": 95.0}) == {"commands": 2.0, "calls": 90.0}
    assert least({"commands": 3.0}, {}) == {"commands": 3.0}


def test_both_servers_have_a_record_of_every_case() -> None:
    record = read()
    assert record.keys() == {"valkey", "redis"}
    assert all(costs.keys() == CASES.keys() for costs in record.values())


@pytest.mark.parametrize(("case", "most"), [("noop-1", 3.0), ("noop-10", 2.3), ("noop-100", 1.4)])
def test_a_job_takes_few_commands_where_the_server_has_msetex(case: str, most: float) -> None:
    assert read()["valkey"][case]["commands"] <= most
