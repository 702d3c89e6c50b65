"""The six agents together, on a real server: from the file of requests to the outbox."""

import json
from pathlib import Path
from typing import Any

import travel.client_data
import travel.communication
import travel.error_monitor
import travel.flight_search
import travel.orchestrator
import travel.proposal_analysis

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
    "R-007": ("flight-search", "fatal"),
    "R-012": ("orchestrator", "fatal"),
    "R-019": ("orchestrator", "fatal"),
    "R-022": ("flight-search", "fatal"),
    "R-028": ("orchestrator", "invalid-payload"),
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
        dead = [
            letter
            for queue in ("orchestrator", "flight-search")
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
