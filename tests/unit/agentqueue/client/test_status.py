"""A job's status and a queue's stats, from what the server says."""

from dataclasses import replace
from typing import Any

import pytest

from agentqueue.client.stats import stats_of
from agentqueue.client.status import JobStatus, status_of
from agentqueue.keys import Level
from agentqueue.model.attempts import Progress, attempt_error, encode_errors, encode_progress
from agentqueue.model.dead_letter import DeadLetter, DeadLetterReason, dead_letter_to_json, encode_dead_letter
from agentqueue.model.job import OMITTED, JobRecord, State, encode_job
from agentqueue.model.json import camel
from agentqueue.model.result import ResultRecord, encode_result
from agentqueue.model.times import from_ms
from agentqueue.store import Heartbeat, QueueSnapshot, Snapshot

NOW = 1_800_000_000_000
RECORD = encode_job(JobRecord("search", ({"a": 1},), enqueued_ms=NOW - 5_000, queue="flights", priority=5))
LETTER = DeadLetter(
    id="trip",
    queue="flights",
    name="search",
    data={"a": 1},
    priority=1,
    reason=DeadLetterReason.FATAL,
    errors=(attempt_error(1, NOW, "Fatal", "no airport", "Traceback"),),
    fingerprint="f" * 12,
    attempts=1,
    deliveries=2,
    enqueued_ms=NOW - 9_000,
    died_ms=NOW,
)


def snapshot(**known: Any) -> Snapshot:
    plain: dict[str, Any] = {
        "id": "trip",
        "queue": "flights",
        "record": None,
        "held": None,
        "attempts": 0,
        "result": None,
        "meta": {},
        "dead": {},
        "level": None,
        "score": None,
        "done_ms": None,
        "now_ms": NOW,
        "cancel_asked": False,
    }
    return Snapshot(**(plain | known))


def live(**known: Any) -> Snapshot:
    return snapshot(**({"record": RECORD, "level": Level.HIGH, "score": NOW - 5_000.0} | known))


def status(known: Snapshot) -> JobStatus:
    found = status_of(known)
    assert found is not None
    return found


def result(**fields: Any) -> bytes:
    plain: dict[str, Any] = {
        "id": "trip",
        "name": "search",
        "queue": "flights",
        "success": True,
        "result": [1],
        "started_ms": NOW - 10,
        "finished_ms": NOW,
        "args": ({"a": 1},),
        "enqueued_ms": NOW - 20,
        "attempts": 1,
        "deliveries": 1,
        "worker": "w1",
    }
    return encode_result(ResultRecord(**(plain | fields)))


def test_what_the_server_does_not_know_has_no_status() -> None:
    assert status_of(snapshot()) is None


def test_a_job_that_has_snoozed_says_how_often_and_why() -> None:
    found = status(live(score=NOW + 60_000.0, meta={"snoozes": b"3", "snooze": "übervoll".encode()}))
    assert (found.snoozes, found.snooze) == (3, "übervoll")
    assert (status(live()).snoozes, status(live()).snooze) == (0, None)


@pytest.mark.parametrize(
    ("known", "state"),
    [
        (live(), State.WAITING),
        (live(score=NOW + 60_000.0), State.DELAYED),
        (live(score=-(NOW + 8_000.0), held=b"w1/7|2|1799999995000|1799999999000"), State.ACTIVE),
    ],
)
def test_live_states(known: Snapshot, state: State) -> None:
    found = status(known)
    assert (found.state, found.name, found.data, found.priority) == (state, "search", {"a": 1}, "high")
    assert found.enqueued_at == from_ms(NOW - 5_000)
    assert not found.is_final


@pytest.mark.parametrize(
    ("known", "due"),
    [
        pytest.param(live(score=NOW + 60_000.0), "2027-01-15T08:01:00.000Z", id="delayed"),
        pytest.param(live(), None, id="waiting"),
        pytest.param(live(score=NOW + 60_000.0, held=b"1"), None, id="run-by-plain-arq"),
        pytest.param(live(score=-(NOW + 8_000.0)), None, id="active"),
        pytest.param(live(score=1e18), None, id="in-a-year-that-no-calendar-has"),
        pytest.param(live(score=float("inf")), None, id="never"),
    ],
)
def test_a_delayed_job_shows_when_it_is_due(known: Snapshot, due: str | None) -> None:
    assert status(known).to_json()["dueAt"] == due


def test_a_running_job_shows_its_worker_its_start_and_its_progress() -> None:
    meta = {
        "progress": encode_progress(Progress(40, "looking", NOW)),
        "errors": encode_errors([attempt_error(1, NOW - 1_000, "ValueError", "nope")]),
        "crashes": b"1",
        "releases": b"2",
    }
    found = status(live(score=-1.0 * NOW, held=b"w1/7|2|5|1799999999000", attempts=1, meta=meta))
    assert (found.worker, found.started_at) == ("w1", from_ms(1_799_999_999_000))
    assert (found.attempts, found.deliveries, found.error) == (1, 5, "ValueError: nope")
    assert found.to_json()["progress"] == {"percent": 40, "message": "looking", "at": "2027-01-15T08:00:00.000Z"}


def test_a_plain_arq_workers_hold_names_nobody() -> None:
    found = status(live(held=b"1"))
    assert (found.state, found.worker, found.started_at) == (State.ACTIVE, None, None)


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (None, "its record is missing"),
        (b"\x80\x05}q\x00.", "its record is a pickle, which is not read here"),
        (b"{garbage", "the job's record is not valid"),
    ],
)
def test_a_record_that_cannot_be_read_has_the_reason_as_its_error(record: bytes | None, error: str) -> None:
    found = status(live(record=record))
    assert found.name == ""
    assert found.error is not None
    assert error in found.error


def test_a_dead_job_is_described_by_its_dead_letter() -> None:
    dead = {"dead_letter": encode_dead_letter(LETTER), "queue": b"flights"}
    found = status(snapshot(dead=dead))
    assert (found.state, found.priority, found.error, found.attempts) == (State.DEAD, "urgent", "Fatal: no airport", 1)
    assert (found.finished_at, found.started_at, found.worker) == (from_ms(NOW), None, None)
    late = result(success=False, result=RuntimeError("x"), state=State.DEAD, progress=Progress(9))
    found = status(snapshot(dead=dead, result=late))
    assert (found.started_at, found.worker, found.progress) == (from_ms(NOW - 10), "w1", Progress(9))


def test_a_replayed_job_is_live_again_whatever_is_left_of_its_death() -> None:
    assert status(live(dead={"dead_letter": encode_dead_letter(LETTER)})).state is State.WAITING


@pytest.mark.parametrize(
    ("raw", "state", "value", "error"),
    [
        (result(), State.COMPLETED, [1], None),
        (result(success=False, result=RuntimeError("boom"), state=State.DEAD), State.DEAD, None, "RuntimeError: boom"),
        (b"\x80\x05}q\x00.", State.COMPLETED, None, "its result is a pickle, which is not read here"),
    ],
)
def test_ended_jobs(raw: bytes, state: State, value: Any, error: str | None) -> None:
    found = status(snapshot(result=raw, done_ms=NOW))
    assert (found.state, found.result, found.error, found.is_final) == (state, value, error, True)
    assert found.finished_at == from_ms(NOW)


def test_the_history_alone_knows_the_time() -> None:
    found = status(snapshot(done_ms=NOW))
    assert (found.state, found.name, found.finished_at, found.error) == (State.COMPLETED, "", from_ms(NOW), None)


def test_json_has_the_public_names_in_order() -> None:
    assert list(status(live()).to_json()) == [
        "id",
        "queue",
        "name",
        "state",
        "priority",
        "data",
        "progress",
        "attempts",
        "deliveries",
        "enqueuedAt",
        "dueAt",
        "startedAt",
        "finishedAt",
        "result",
        "error",
        "worker",
        "tags",
        "tenant",
        "trace",
        "parent",
        "snoozes",
        "snooze",
        "waitsFor",
        "suspendedAt",
        "children",
        "childrenEnded",
        "schedule",
        "scheduledFor",
        "steps",
        "runningSteps",
    ]
    assert camel("enqueued_per_minute") == "enqueuedPerMinute"


def test_a_dead_letter_as_json() -> None:
    wire = dead_letter_to_json(LETTER)
    assert (wire["diedAt"], wire["priority"], wire["error"]) == (
        "2027-01-15T08:00:00.000Z",
        "urgent",
        "Fatal: no airport",
    )
    assert wire["errors"] == [
        {
            "attempt": 1,
            "at": "2027-01-15T08:00:00.000Z",
            "type": "Fatal",
            "message": "no airport",
            "traceback": "Traceback",
        }
    ]
    assert "diedMs" not in wire
    assert wire["data"] == {"a": 1}


def test_a_dead_letter_without_its_payload_as_json() -> None:
    assert "data" not in dead_letter_to_json(replace(LETTER, data=OMITTED))


def queue(**known: Any) -> QueueSnapshot:
    plain: dict[str, Any] = {
        "queue": "flights",
        "now_ms": NOW,
        "ready": (1, 2, 3, 4),
        "delayed": (0, 0, 5, 0),
        "active": (0, 1, 0, 0),
        "oldest_ms": NOW - 7_000.5,
        "next_due_ms": NOW + 2_000.0,
        "dead": 6,
        "done": 9,
        "paused": None,
        "counters": {"completed": 100, "enqueued": 120},
        "this_minute": {"enqueued": 3},
        "last_minute": {"enqueued": 60, "retried": 4, "dead": 2},
        "workers": (),
        "draining": {},
    }
    return QueueSnapshot(**(plain | known))


def test_stats_sum_up_a_queue() -> None:
    stats = stats_of(queue())
    assert (stats.waiting, stats.delayed, stats.active, stats.completed, stats.dead) == (10, 5, 1, 100, 6)
    assert stats.by_priority == {"urgent": 1, "high": 2, "normal": 3, "low": 4}
    assert (stats.oldest_waiting_seconds, stats.next_due_seconds) == (7.0005, 2.0)
    assert (stats.paused, stats.paused_note, stats.busy, stats.slots) == (False, None, 0, 0)


@pytest.mark.parametrize(("into_minute_ms", "rate"), [(0, 63.0), (30_000, 33.0), (59_999, 3.0)])
def test_rates_slide_over_the_last_60_seconds(into_minute_ms: int, rate: float) -> None:
    start = NOW - NOW % 60_000
    assert stats_of(queue(now_ms=start + into_minute_ms)).enqueued_per_minute == pytest.approx(rate, abs=0.1)


def test_an_empty_queue_has_no_ages() -> None:
    stats = stats_of(queue(oldest_ms=None, next_due_ms=None, paused=b"by ops"))
    assert (stats.oldest_waiting_seconds, stats.next_due_seconds, stats.paused_note) == (None, None, "by ops")


def test_live_workers_are_listed_and_odd_heartbeats_still_count() -> None:
    stats = stats_of(
        queue(
            workers=[
                Heartbeat("w2", NOW - 1_000, b'{"busy":2,"slots":5,"draining":true,"jobs":["a",7]}'),
                Heartbeat("w1", NOW, b"not json"),
                Heartbeat("w3", NOW, b'["a list"]'),
                Heartbeat("w4", NOW, b'{"busy":-1,"slots":true,"jobs":"a"}'),
                Heartbeat("w4/b2", NOW, b'{"incarnation":"b2"}'),
                Heartbeat("gone", NOW - 8_000, b"{}"),
            ]
        )
    )
    assert [worker.name for worker in stats.workers] == ["w1", "w2", "w3", "w4", "w4"]
    assert [worker.incarnation for worker in stats.workers] == [None, None, None, None, "b2"]
    assert (stats.busy, stats.slots) == (2, 5)
    assert (stats.workers[1].jobs, stats.workers[1].draining, stats.workers[1].seen_seconds_ago) == (("a",), True, 1.0)
    assert stats.to_json()["workers"][1]["seenSecondsAgo"] == 1.0


@pytest.mark.parametrize(
    ("held", "expired", "heartbeat", "expected"),
    [
        pytest.param(3, 0, b'{"slots":2,"ahead":32}', (11, 2, 0), id="one-waits-for-a-slot-of-its-worker"),
        pytest.param(3, 0, b'{"slots":2}', (10, 3, 1), id="a-worker-of-long-jobs-holds-none-ahead"),
        pytest.param(5, 1, b'{"slots":1,"ahead":2}', (12, 3, 2), id="beyond-that-their-worker-is-gone"),
        pytest.param(1, 0, b'{"slots":2,"ahead":32}', (10, 1, 0), id="a-slot-for-each"),
    ],
)
def test_jobs_claimed_ahead_of_slots_are_waiting(
    held: int, expired: int, heartbeat: bytes, expected: tuple[int, int, int]
) -> None:
    workers = [Heartbeat("w", NOW, heartbeat)]
    stats = stats_of(queue(active=(0, 0, held, 0), expired_leases=expired, workers=workers))
    assert (stats.waiting, stats.active, stats.stalled) == expected
