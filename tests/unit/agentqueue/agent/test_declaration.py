from dataclasses import dataclass

import pytest

from agentqueue import declare
from agentqueue.agent.job_definition import job_of
from agentqueue.errors import InvalidName, InvalidPayload, UsageError
from agentqueue.model.new_job import NO_PAYLOAD


@dataclass
class Query:
    text: str


@dataclass
class Found:
    offers: list[str]


search = declare("search", "plain-search", Query, Found)


def test_a_declaration_checks_payloads_and_reads_results_as_the_handler_would() -> None:
    assert job_of(search) is search
    assert search.payload.dump(Query("x")) == {"text": "x"}
    assert search.result.load({"offers": []}, "it") == Found([])
    with pytest.raises(InvalidPayload, match="Query refuses the payload: text"):
        search.payload.dump({"text": 5})
    with pytest.raises(InvalidPayload, match="Query refuses"):
        search.payload.dump()


def test_without_types_there_is_no_payload_and_no_result() -> None:
    bare = declare("search", "sweep")
    assert bare.payload.dump() is NO_PAYLOAD
    assert bare.result.load(None, "it") is None
    with pytest.raises(InvalidPayload, match=r"^declare\('search', 'sweep'\) takes no payload"):
        bare.payload.dump(1)


def test_names_are_checked_at_once_and_types_when_they_are_used() -> None:
    for queue, name in (("a b", "x"), ("a", "x y")):
        with pytest.raises(InvalidName):
            declare(queue, name)
    kind: type[object] = type("Foreign", (), {})
    foreign = declare("search", "odd", kind)
    with pytest.raises(UsageError, match=r"^declare\('search', 'odd'\): .*Foreign'> can't be a payload"):
        foreign.payload.dump(1)
