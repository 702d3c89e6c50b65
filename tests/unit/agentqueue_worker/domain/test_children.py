"""How children are named, sent in parts, and read."""

import orjson
import pytest

from agentqueue.agent.children import ChildFailed
from agentqueue.agent.durable import ChildCall
from agentqueue.agent.outcomes import DurableError
from agentqueue.errors import InvalidPayload
from agentqueue.model.new_job import NewJob
from agentqueue_worker.domain.children import (
    describe_children,
    gather_name,
    id_of,
    result_of,
    split_children,
)


def child(number: int, *, name: str = "find", size: int = 10) -> ChildCall:
    call = ChildCall(NewJob("search", "", b"x" * size), name, "f", None, None)
    call.place, call.id = f"search/{name}#{number}", f"id-{number}"
    return call


def test_a_gather_is_named_by_its_children() -> None:
    assert gather_name([child(1)]) == "search/find#1"
    several = gather_name([child(1), child(2)])
    assert len(several) == 16
    assert gather_name([child(2), child(1)]) != several


def test_people_read_what_a_gather_waits_for() -> None:
    assert describe_children([child(1)]) == "child search/find#1"
    assert describe_children([child(1), child(2)]) == "2 children (search/find)"
    many = [child(1, name=name) for name in ("d", "c", "b", "a")]
    assert describe_children(many) == "4 children (search/a, search/b, search/c, …)"


def test_children_are_sent_in_parts_of_200_and_3_mib() -> None:
    assert [*split_children([])] == []
    assert [len(part) for part in split_children([child(number) for number in range(450)])] == [200, 200, 50]
    large = [child(number, size=1_100_000) for number in range(5)]
    assert [len(part) for part in split_children(large)] == [2, 2, 1]
    assert [len(part) for part in split_children([child(1, size=4_000_000), child(2)])] == [1, 1]


def test_a_result_is_read_as_the_handler_returns_it() -> None:
    call = child(1)
    assert result_of(call, b'{"v":[1,2]}') == [1, 2]
    call.load = tuple
    assert result_of(call, b'{"v":[1,2]}') == (1, 2)
    assert id_of(call) == "id-1"


def test_a_failed_child_is_an_error_with_what_is_known_of_it() -> None:
    raw = orjson.dumps({"e": {"state": "dead", "type": "ValueError", "message": "no seat", "reason": "failed"}})
    failed = result_of(child(1), raw)
    assert isinstance(failed, ChildFailed)
    assert str(failed) == "child search/find#1 (id-1) is dead: ValueError: no seat"
    assert (failed.id, failed.target) == ("id-1", ("search", "find"))
    assert (failed.error, failed.state) == ("ValueError: no seat", "dead")


def test_a_result_that_is_gone_or_does_not_fit_names_the_child() -> None:
    with pytest.raises(DurableError, match="what child id-1 returned is gone"):
        result_of(child(1), None)
    with pytest.raises(DurableError, match="child search/find#1 \\(id-1\\): what the child returned is not valid"):
        result_of(child(1), b"{}")

    def refuse(value: object) -> object:
        raise InvalidPayload(f"{value} does not fit Found")

    call = child(1)
    call.load = refuse
    with pytest.raises(DurableError, match="1 does not fit Found"):
        result_of(call, b'{"v":1}')
