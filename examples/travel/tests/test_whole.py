"""The six agents together, on a real server: from the file of requests to the outbox."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import travel.client_data
import travel.communication
import travel.error_monitor
import travel.flight_search
import travel.orchestrator
import travel.proposal_analysis
from travel.communication import APPROVAL
from travel.fleet import FLEET
from travel.payloads import FlightRequest, Market, Quote
from travel.pricing import search

from agentqueue.testing import Sandbox

HERE = Path(__file__).parents[1]
AGENTS = [
    getattr(travel, name).agent
    for name in (
        "orchestrator",
        "client_data",
        "flight_search",
        "proposal_analysis",
        "communication",
        "error_monitor",
    )
]
BAD = {
    "R-007": ("proposal-analysis", "fatal"),
    "R-012": ("orchestrator", "fatal"),
    "R-019": ("orchestrator", "fatal"),
    "R-022": ("proposal-analysis", "fatal"),
    "R-028": ("orchestrator", "invalid-payload"),
}
EXPENSIVE = {"R-017", "R-023", "R-026", "R-033", "R-037", "R-039"}
"""Requests whose proposals a person approves."""
TRIP = {
    "requestId": "R-1",
    "userId": "mueller",
    "clientEmail": "anna@nordbank.example",
    "trip": {"departure": "Berlin", "arrival": "Lisbon", "passengers": 6, "date": "2026-12-11"},
}


def jobs() -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (HERE / "requests.jsonl").read_text().splitlines()]
    return [
        {
            "queue": "orchestrator",
            "name": "plan-trip",
            "data": data,
            "id": data["requestId"],
            "priority": data["priority"],
        }
        for data in lines
    ]


async def test_every_request_ends_as_a_proposal_or_a_dead_letter_with_its_reason(data: Path) -> None:
    async with Sandbox(*AGENTS) as box:
        await box.client.enqueue_many(jobs())
        await box.run_until_idle()
        waiting = await box.client.jobs("communication", "suspended", limit=100, fields=["data"])
        assert {job.data["requestId"] for job in waiting} == EXPENSIVE
        assert not {path.stem.removeprefix("P-") for path in (data / "outbox").iterdir()} & EXPENSIVE
        for job in waiting:
            await box.signal(job.id, APPROVAL, {"approved": True}, sender="the desk")
        await box.run_until_idle()
        dead = [
            letter
            for queue in ("orchestrator", "proposal-analysis")
            for letter in await box.client.dead_letters(queue, fields=["data"])
        ]
        assert {letter.data["requestId"]: (letter.queue, letter.reason) for letter in dead} == BAD
        assert sum(queue.dead for queue in await box.client.stats()) == len(BAD)
    sent = {path.stem for path in (data / "outbox").iterdir()}
    assert sent == {f"P-{job['id']}" for job in jobs() if job["id"] not in BAD}
    client = json.loads((data / "clients" / "mueller.json").read_bytes())
    assert set(client["trips"]) == {"R-001", "R-035"}


async def test_the_same_requests_again_send_nothing_twice(data: Path) -> None:
    async with Sandbox(*AGENTS) as box:
        await box.client.enqueue_many(jobs()[:3])
        await box.run_until_idle()
        before = {path: path.stat().st_mtime_ns for path in (data / "outbox").iterdir()}
        again = await box.client.enqueue_many(jobs()[:3])
        await box.run_until_idle()
        assert all(job.deduplicated for job in again)
    assert {path: path.stat().st_mtime_ns for path in (data / "outbox").iterdir()} == before
    assert len(before) == 3


async def test_a_dead_letter_of_another_agent_becomes_an_incident(data: Path) -> None:
    async with Sandbox(*AGENTS) as box:
        job = await box.client.enqueue(travel.error_monitor.agent.jobs["dead-letter"], LETTER)
        await box.run_until_idle()
        result = await job.result(timeout=5)
    assert (result["job"], result["reason"]) == ("R-7", "fatal")
    assert "no airport" in (data / "incidents" / result["incident"]).read_text()


LETTER = {
    "id": "R-7",
    "queue": "flight-search",
    "name": "search-flights",
    "reason": "fatal",
    "error": "Fatal: no airport or city is named 'Atlantis'",
    "attempts": 1,
    "data": {"requestId": "R-7", "userId": "haddad"},
    "diedAt": "2026-12-02T09:00:00.000Z",
    "errors": [],
}


async def test_a_search_that_fails_is_tried_again_and_the_other_market_is_not_asked_twice(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Market | None] = []

    def search_with_one_error(request: FlightRequest) -> list[Quote]:
        asked.append(request.market)
        if asked == [Market.EUROPE]:
            raise ConnectionError("the price list does not answer")
        return search(request)

    monkeypatch.setattr(travel.flight_search, "search", search_with_one_error)
    async with Sandbox(*AGENTS) as box:
        await box.client.enqueue("proposal-analysis", "propose", TRIP, id="proposing")
        assert (await box.client.result("proposing"))["considered"] == len(FLEET)
    assert Counter(asked) == {Market.EUROPE: 2, Market.OVERSEAS: 1}
