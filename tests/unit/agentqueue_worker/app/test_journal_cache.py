"""A worker reads the journal of a job that it has suspended again only if another run may have changed it."""

from collections.abc import Mapping

import pytest

from agentqueue.keys import Level
from agentqueue.model.outcomes import Claimed
from agentqueue_worker.app import journal_cache
from agentqueue_worker.app.journal_cache import MIN_BYTES, JournalCache

ENTRIES = {"step:plan#1": b"{}"}


def claimed(job_id: str = "a", *, meta: Mapping[str, bytes]) -> Claimed:
    return Claimed(job_id, Level.NORMAL, 1.0, b"{}", 0, meta, cancel=False)


def keep(cache: JournalCache, job_id: str = "a", *, size: int = MIN_BYTES, delivery: int = 3) -> None:
    cache.keep(job_id, ENTRIES, size=size, delivery=delivery, lease=b"w/1|3|17.0|1234|ahead")


OURS = {"suspended_by": b"1234", "releases": b"3"}


def test_the_next_run_after_the_suspension_gets_the_journal_once() -> None:
    cache = JournalCache()
    keep(cache)
    assert cache.take(claimed(meta=OURS)) == ENTRIES
    assert cache.take(claimed(meta=OURS)) is None


@pytest.mark.parametrize(
    "meta",
    [
        {**OURS, "suspended_by": b"1235"},
        {"releases": b"3"},
        {**OURS, "releases": b"4"},
        {**OURS, "releases": b"2"},
        {**OURS, "crashes": b"1"},
    ],
    ids=["another run suspended it", "its notes are lost", "another run followed", "a replay", "a crash followed"],
)
def test_a_journal_that_another_run_may_have_changed_does_not_count(meta: Mapping[str, bytes]) -> None:
    cache = JournalCache()
    keep(cache)
    assert cache.take(claimed(meta=meta)) is None


def test_small_journals_are_read_again() -> None:
    cache = JournalCache()
    keep(cache, size=MIN_BYTES - 1)
    assert cache.take(claimed(meta=OURS)) is None


def test_the_oldest_journals_leave_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_cache, "MAX_BYTES", 3 * MIN_BYTES)
    cache = JournalCache()
    for job_id in "abc":
        keep(cache, job_id)
    keep(cache, "a")
    keep(cache, "d", size=2 * MIN_BYTES)
    keep(cache, "e", size=4 * MIN_BYTES)
    kept = [job_id for job_id in "abcde" if cache.take(claimed(job_id, meta=OURS))]
    assert kept == ["a", "d"]
