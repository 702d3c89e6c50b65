"""The demo's file of 40 requests. Five are bad, each in a different way."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from travel.airports import atlas
from travel.errors import CannotServe
from travel.message import read_message
from travel.payloads import ClientMessage, FlightRequest
from travel.pricing import search

from agentqueue.spec import load_file, resolve

HERE = Path(__file__).parents[1]
BAD = {
    "R-007": "no airport or city is named 'Atlantis'",
    "R-012": "is past",
    "R-019": "names no route",
    "R-022": "more than any aircraft of the fleet seats",
    "R-028": "is not an e-mail address",
}


def requests() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / "requests.jsonl").read_text().splitlines()]


def serve(data: dict[str, Any]) -> int:
    asked = ClientMessage.model_validate(data)
    trip = read_message(asked.message, asked.received_on, atlas())
    whose = asked.model_dump(include={"request_id", "user_id"}, by_alias=False)
    return len(search(FlightRequest(**whose, **trip.model_dump(by_alias=False))))


@pytest.mark.parametrize("data", requests(), ids=lambda data: data["requestId"])
def test_each_request_gets_offers_or_the_reason_why_not(data: dict[str, Any]) -> None:
    reason = BAD.get(data["requestId"])
    if reason is None:
        assert serve(data) >= 2
        return
    with pytest.raises((CannotServe, ValidationError), match=reason):
        serve(data)


def test_the_file_has_thirty_requests_and_more_with_ids_of_their_own() -> None:
    ids = [data["requestId"] for data in requests()]
    assert len(ids) == len(set(ids)) >= 30
    assert set(BAD) <= set(ids)


def test_the_resource_is_valid_and_its_handlers_import() -> None:
    queue = resolve(load_file(HERE / "agentqueue.yaml").one())
    for agent in queue.agents:
        module, _, name = agent.handler.partition(":")
        assert getattr(importlib.import_module(module), name).queue == agent.queue_name
    monitored = {agent.name: agent.dead_letter_queue for agent in queue.agents}
    assert monitored.pop("error-monitor") is None
    assert set(monitored.values()) == {"error-monitor"}
    assert len(queue.agents) == 6
