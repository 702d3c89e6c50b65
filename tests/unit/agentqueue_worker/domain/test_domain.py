"""The worker's decisions: pure functions, read as tables."""

from dataclasses import astuple, replace
from typing import Any

import pytest

from agentqueue.keys import Level
from agentqueue.model.attempts import AttemptError
from agentqueue.model.dead_letter import DeadLetter, DeadLetterReason
from agentqueue.model.job import UNREADABLE_RECORD, JobRecord
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import (
    MAX_JOBS_PER_CALL,
    Cancelled,
    Claimed,
    Completed,
    DeadLettered,
    Released,
    Rescheduled,
)
from agentqueue.model.retry_policy import Backoff
from agentqueue_worker.domain.admission import (
    Admission,
    AdmissionRules,
    Defer,
    DropCancelled,
    Reject,
    Start,
    admit,
    explain_unknown,
    reject_unreadable,
)
from agentqueue_worker.domain.claim_size import INTERVAL_S, ahead_limit, ahead_size, claim_limit, interval, moving_mean
from agentqueue_worker.domain.claimed_job import ClaimedJob
from agentqueue_worker.domain.dead_letter import dead_letter_of
from agentqueue_worker.domain.drain_plan import plan_drain
from agentqueue_worker.domain.error_record import add_error, describe_failure
from agentqueue_worker.domain.leases import Leases, renewal_interval_s, to_renew
from agentqueue_worker.domain.outbox import Batch, Outbox
from agentqueue_worker.domain.priority_ageing import MAX_CREDIT, STARTS_PER_AGED, AgeCredit
from agentqueue_worker.domain.retry import GiveUp, TryAgain, decide_retry, snooze_ms

NOW = 1_800_000_000_000


def claimed(job_id: str = "j", **fields: Any) -> Claimed:
    return replace(Claimed(job_id, Level.NORMAL, float(NOW), b"{}", 0, {}, cancel=False), **fields)


# --- batches


@pytest.mark.parametrize(
    ("concurrency", "mean_seconds", "ahead", "most"),
    [
        pytest.param(1, 9.0, 0, 1, id="one-slot"),
        pytest.param(10, 0.0, 0, 10, id="few-slots"),
        pytest.param(10, 0.0, 32, 21, id="few-slots-and-ahead"),
        pytest.param(100, 0.0, 0, 50, id="short-jobs-half"),
        pytest.param(100, 0.0, 100, 100, id="short-jobs-half-and-ahead"),
        pytest.param(100, 0.05, 0, 9, id="long-jobs-few"),
        pytest.param(100, 0.05, 6, 15, id="long-jobs-few-and-ahead"),
        pytest.param(10_000, 0.0, 0, MAX_JOBS_PER_CALL, id="bounded"),
    ],
)
def test_how_many_jobs_a_round_trip_claims(concurrency: int, mean_seconds: float, ahead: int, most: int) -> None:
    assert claim_limit(concurrency, mean_seconds, ahead) == most


@pytest.mark.parametrize(
    ("concurrency", "mean_seconds", "round_trip_seconds", "ahead"),
    [
        pytest.param(10, 0.0, 0.001, 0, id="no-mean-yet"),
        pytest.param(10, 1.0, 0.001, 0, id="long-jobs"),
        pytest.param(100, 0.05, 0.0005, 15, id="7.5-ms-of-work"),
        pytest.param(100, 0.05, 0.006, 18, id="one-and-a-half-round-trips"),
        pytest.param(100, 0.05, 0.5, 20, id="10-ms-of-work-at-most"),
        pytest.param(1, 0.0001, 0.0005, 8, id="short-jobs-without-an-interval"),
        pytest.param(1, 0.00001, 0.001, 32, id="few-slots-bounded"),
        pytest.param(100, 0.00001, 0.001, 100, id="bounded-by-slots"),
    ],
)
def test_how_many_jobs_are_held_ahead(
    concurrency: int, mean_seconds: float, round_trip_seconds: float, ahead: int
) -> None:
    assert ahead_size(concurrency, mean_seconds, round_trip_seconds) == ahead
    assert ahead <= ahead_limit(concurrency)


def test_round_trips_are_apart_only_if_jobs_are_not_short() -> None:
    assert (interval(0.05), interval(0.001)) == (INTERVAL_S, 0.0)


def test_the_mean_follows_the_newest_jobs() -> None:
    mean = 0.0
    for _ in range(60):
        mean = moving_mean(mean, 1.0)
    assert 0.9 < mean < 1.0


# --- retry

DOUBLING = Backoff("exponential", delay=2, max_delay=600, jitter=0)


@pytest.mark.parametrize(
    ("backoff", "attempt", "after", "roll", "delay_ms"),
    [
        pytest.param(DOUBLING, 1, None, 0.0, 2_000, id="first"),
        pytest.param(DOUBLING, 2, None, 0.0, 4_000, id="doubles"),
        pytest.param(DOUBLING, 9, None, 0.0, 512_000, id="doubles-on"),
        pytest.param(DOUBLING, 10, None, 0.0, 600_000, id="capped"),
        pytest.param(DOUBLING, 999, None, 0.0, 600_000, id="no-overflow"),
        pytest.param(Backoff("fixed", delay=3, jitter=0), 7, None, 0.0, 3_000, id="fixed"),
        pytest.param(Backoff("fixed", delay=3600, jitter=0), 7, None, 0.0, 3_600_000, id="fixed-does-not-grow"),
        pytest.param(Backoff("fixed", delay=10, jitter=0.5), 1, None, 1.0, 5_000, id="jitter-shortens"),
        pytest.param(Backoff("fixed", delay=10, jitter=0.5), 1, None, 0.0, 10_000, id="no-roll-no-jitter"),
        pytest.param(Backoff("exponential", delay=2, max_delay=1), 1, None, 0.0, 1_000, id="cap-below-delay"),
        pytest.param(DOUBLING, 1, 0.25, 0.9, 250, id="the-handlers-own-delay"),
        pytest.param(DOUBLING, 1, 0.0, 0.9, 0, id="at-once"),
    ],
)
def test_the_delay_before_the_next_attempt(
    backoff: Backoff, attempt: int, after: float | None, roll: float, delay_ms: int
) -> None:
    decision = decide_retry(backoff, attempt=attempt, attempts=1_000, after=after, roll=roll)
    assert decision == TryAgain(delay_ms)


@pytest.mark.parametrize(
    ("after", "expires_ms", "delay_ms"), [(2.5, 0, 2_500), (2.5, 9_000, 2_500), (2.5, 6_000, 1_000), (2.5, 4_000, 0)]
)
def test_a_snooze_ends_when_the_job_expires(after: float, expires_ms: int, delay_ms: int) -> None:
    assert snooze_ms(after, now_ms=5_000, expires_ms=expires_ms) == delay_ms


@pytest.mark.parametrize(("attempt", "attempts"), [(1, 1), (3, 3), (4, 3)])
def test_no_attempt_after_the_last_even_if_the_handler_asks(attempt: int, attempts: int) -> None:
    assert decide_retry(DOUBLING, attempt=attempt, attempts=attempts, after=1.0, roll=0) == GiveUp()


# --- admission


def test_attempts_before_the_last_progress_count_for_the_backoff_and_the_total_alone() -> None:
    assert decide_retry(DOUBLING, attempt=5, attempts=3, after=1.0, roll=0, past=3) == TryAgain(1000)
    assert decide_retry(DOUBLING, attempt=6, attempts=3, after=1.0, roll=0, past=3) == GiveUp()
    assert decide_retry(DOUBLING, attempt=60, attempts=3, after=1.0, roll=0, past=59) == GiveUp()


RULES = AdmissionRules(crash_limit=3, unknown_grace_ms=60_000)
STEPS = {"journal": b"1", "suspensions": b"1"}
GIVEN_UP = Reject(DeadLetterReason.UNKNOWN_JOB, "this agent has no job 'sarch'; did you mean 'search'?")


@pytest.mark.parametrize(
    ("job", "known", "rules", "decision"),
    [
        pytest.param(claimed(), True, RULES, Start(), id="runs"),
        pytest.param(claimed(meta={"crashes": b"2"}), True, RULES, Start(), id="crashed-twice-runs"),
        pytest.param(claimed(cancel=True), True, RULES, DropCancelled(), id="cancelled"),
        pytest.param(
            claimed(cancel=True), True, AdmissionRules(3, 0, cancellable=False), Start(), id="cancel-not-honoured"
        ),
        pytest.param(claimed(cancel=True, meta=STEPS), True, RULES, Start(), id="cancelled-with-steps-to-undo"),
        pytest.param(claimed(cancel=True, meta=STEPS), False, RULES, DropCancelled(), id="cancelled-and-unknown"),
        pytest.param(
            claimed(cancel=True, meta=STEPS | {"crashes": b"3"}),
            True,
            RULES,
            DropCancelled(),
            id="cancelled-and-crashed",
        ),
        pytest.param(
            claimed(cancel=True, meta={"journal": b"1"}), True, RULES, DropCancelled(), id="cancelled-with-a-mailbox"
        ),
        pytest.param(claimed(meta={"expires": b"%d" % (NOW + 1)}), True, RULES, Start(), id="expires-later"),
        pytest.param(
            claimed(meta={"expires": b"%d" % NOW}),
            True,
            RULES,
            Reject(DeadLetterReason.EXPIRED, "its _expires passed before a worker came to it"),
            id="expired",
        ),
        pytest.param(claimed(meta={"crashes": b"4", "past_crashes": b"2"}), True, RULES, Start(), id="progress"),
        pytest.param(
            claimed(meta={"crashes": b"5", "past_crashes": b"2"}),
            True,
            RULES,
            Reject(
                DeadLetterReason.CRASHED,
                "5 workers died while they ran it, the last 3 without any progress of the job",
            ),
            id="crashed-without-progress",
        ),
        pytest.param(
            claimed(meta={"crashes": b"60", "past_crashes": b"60"}),
            True,
            RULES,
            Reject(
                DeadLetterReason.CRASHED,
                "60 workers died while they ran it, the last 0 without any progress of the job",
            ),
            id="crashed-in-all",
        ),
        pytest.param(
            claimed(meta={"crashes": b"3"}),
            True,
            RULES,
            Reject(DeadLetterReason.CRASHED, "3 workers died while they ran it"),
            id="crashed",
        ),
        pytest.param(claimed(), False, RULES, Defer(5_000, NOW), id="unknown-for-the-first-time"),
        pytest.param(
            claimed(meta={"unknown_since": b"%d" % (NOW - 59_999)}),
            False,
            RULES,
            Defer(5_000, NOW - 59_999),
            id="unknown-for-a-while",
        ),
        pytest.param(
            claimed(meta={"unknown_since": b"%d" % (NOW - 60_000)}), False, RULES, GIVEN_UP, id="unknown-too-long"
        ),
        pytest.param(claimed(), False, AdmissionRules(3, 0), GIVEN_UP, id="unknown-is-final-for-arq"),
    ],
)
def test_what_happens_to_a_claimed_job(job: Claimed, known: bool, rules: AdmissionRules, decision: Admission) -> None:
    handler = object() if known else None
    rules = replace(rules, names=["search", "mail"])
    assert admit(ClaimedJob(job, JobRecord("sarch"), handler), rules, NOW) == decision


@pytest.mark.parametrize(
    ("name", "names", "hint"),
    [
        ("zzz", ["search", "mail"], "it knows mail, search"),
        ("zzz", [], "it knows none"),
        ("serch", ["search"], "did you mean 'search'?"),
    ],
)
def test_an_unknown_name_is_explained_by_the_nearest(name: str, names: list[str], hint: str) -> None:
    assert explain_unknown(name, names).endswith(hint)


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        pytest.param(claimed(record=None), DeadLetterReason.NO_RECORD, id="just-due"),
        pytest.param(claimed(record=None, score=1.0), DeadLetterReason.NO_RECORD, id="arqs-abort-score-is-no-time"),
        pytest.param(claimed(record=None, score=NOW - 1_000.0), DeadLetterReason.EXPIRED, id="due-for-a-second"),
        pytest.param(claimed(record=b"\x80\x04K\x01."), DeadLetterReason.PICKLED, id="pickle"),
        pytest.param(claimed(record=b"{"), DeadLetterReason.GARBAGE, id="garbage"),
    ],
)
def test_why_a_record_cant_be_read(job: Claimed, reason: DeadLetterReason) -> None:
    assert reject_unreadable(job, "not JSON", now_ms=NOW).reason is reason


def test_a_record_of_another_redis_type_is_named() -> None:
    job = claimed(record=None, meta={"wrong_type": b"hash"}, score=NOW - 5_000.0)
    verdict = reject_unreadable(job, "", now_ms=NOW)
    assert (verdict.reason, "arq:job:j is a hash" in verdict.message) == (DeadLetterReason.GARBAGE, True)


# --- dead letters

CAUSE = AttemptError(3, NOW, "ValueError", "no airport 'XYZ'")


def dead_job() -> ClaimedJob[None]:
    record = JobRecord("search", ({"to": "XYZ"},), enqueued_ms=5, tags=("acme",), parent="p")
    return ClaimedJob(claimed(attempts=2, meta={"crashes": b"1"}), record, None)


def dead_letter(
    job: ClaimedJob[None], reason: DeadLetterReason = DeadLetterReason.FAILED, cause: AttemptError = CAUSE
) -> DeadLetter:
    return dead_letter_of(job, "q", reason, [AttemptError(2, NOW - 5, "OSError", "x"), cause])


def test_a_dead_letter_holds_the_job_its_errors_and_its_counts() -> None:
    letter = dead_letter(dead_job())
    assert (letter.id, letter.queue, letter.name, letter.data) == ("j", "q", "search", {"to": "XYZ"})
    assert [error.type for error in letter.errors] == ["OSError", "ValueError"]
    assert (letter.attempts, letter.deliveries, letter.enqueued_ms, letter.died_ms) == (2, 3, 5, NOW)
    assert (letter.priority, letter.replayable, letter.tags, letter.parent) == (10, True, ["acme"], "p")


def test_failures_of_one_kind_share_a_fingerprint() -> None:
    same_kind = dead_letter(dead_job(), cause=replace(CAUSE, message="no airport 'QQQ'"))
    other_reason = dead_letter(dead_job(), DeadLetterReason.FATAL)
    assert dead_letter(dead_job()).fingerprint == same_kind.fingerprint
    assert dead_letter(dead_job()).fingerprint != other_reason.fingerprint


def test_a_job_without_a_record_is_not_replayable() -> None:
    letter = dead_letter(ClaimedJob(claimed(record=None, level=Level.HIGH), UNREADABLE_RECORD, None))
    assert (letter.replayable, letter.name, letter.priority) == (False, "", 5)


# --- failures


class Nasty(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def test_hidden_frames_are_left_out_at_the_top_and_only_there() -> None:
    def user() -> None:
        raise ValueError("boom")

    try:
        user()
    except ValueError as exc:
        all_ = describe_failure(exc, attempt=1, at_ms=NOW)
        none = describe_failure(exc, attempt=1, at_ms=NOW, hidden=[__file__])
    assert all_.traceback.count("File ") == 2
    assert none.traceback == "ValueError: boom\n"
    assert (all_.type, all_.message, all_.attempt, all_.at_ms) == ("ValueError", "boom", 1, NOW)


def test_an_exception_whose_text_cant_be_made_is_described_all_the_same() -> None:
    try:
        raise Nasty
    except Nasty as exc:
        error = describe_failure(exc, attempt=1, at_ms=NOW)
    assert error.type == "Nasty"
    assert "can't be made" in error.message
    assert "test_domain.py" in error.traceback


def test_errors_add_up_to_the_last_ten() -> None:
    meta: dict[str, bytes] = {}
    for attempt in range(1, 13):
        meta["errors"] = add_error(meta, AttemptError(attempt, NOW, "E", str(attempt)))
    assert meta["errors"].count(b'"attempt"') == 10
    assert b'"attempt":12,' in meta["errors"]
    assert b'"attempt":2,' not in meta["errors"]


# --- leases


def test_leases_are_renewed_four_times_before_they_run_out() -> None:
    assert renewal_interval_s(8_000) == 2.0


def test_what_is_held_is_renewed_with_its_level() -> None:
    leases = Leases()
    leases.take([claimed("a", level=Level.HIGH), claimed("b")])
    leases.drop(["b", "never-held"])
    assert to_renew(leases.snapshot()) == [("a", Level.HIGH)]
    assert len(leases) == 1


def test_a_job_claimed_again_since_the_renewal_began_is_not_lost() -> None:
    leases = Leases()
    for name in ("same", "again", "ended"):
        leases.take([claimed(name)])
    renewed = leases.snapshot()
    leases.take([claimed("again")])
    leases.drop(["ended"])
    assert leases.confirm_lost(["same", "again", "ended", "foreign"], renewed) == ["same"]


# --- fairness


@pytest.mark.parametrize("size", [1, 7, 32])
def test_one_start_in_four_may_go_by_age(size: int) -> None:
    credit, started, by_age = AgeCredit(), 0, 0
    while started < 400:
        aged = min((credit.offer(size, some_may_be_old=True) + size - 1) // STARTS_PER_AGED, size)  # as the script does
        started, by_age = started + size, by_age + aged
        credit.settle(started=size, aged=aged)
        assert by_age <= started / STARTS_PER_AGED
    assert by_age >= started / STARTS_PER_AGED - 2


def test_credit_is_bounded_to_one_start_by_age() -> None:
    credit = AgeCredit()
    credit.settle(started=100_000, aged=0)
    assert credit.offer(9, some_may_be_old=True) == MAX_CREDIT == STARTS_PER_AGED


def test_a_claim_without_jobs_costs_no_credit_and_one_of_old_jobs_alone_is_paid_later() -> None:
    credit = AgeCredit()
    credit.settle(started=3, aged=0)
    credit.settle(started=0, aged=0)
    assert credit.offer(9, some_may_be_old=True) == 3
    credit.settle(started=4, aged=4)
    assert credit.offer(9, some_may_be_old=True) == 3 + 4 - 4 * STARTS_PER_AGED


@pytest.mark.parametrize("want", [1, 2, 4, 5, 1_000])
@pytest.mark.parametrize("started", [0, 1, 10])
def test_no_start_is_by_age_if_no_job_can_be_old(want: int, started: int) -> None:
    credit = AgeCredit()
    credit.settle(started=started, aged=0)
    offered = credit.offer(want, some_may_be_old=False)
    assert all((offered + limit - 1) // STARTS_PER_AGED < 0 for limit in range(want + 1)), "as the script counts"


# --- drain


@pytest.mark.parametrize(
    ("grace", "margin", "plan"),
    [
        pytest.param(60, 5, (155.0, 157.0, 158.0, 158.75), id="the-usual"),
        pytest.param(4, 5, (102.0, 102.8, 103.2, 103.5), id="short-grace-halves"),
        pytest.param(0, 4, (100.0, 101.6, 102.4, 103.0), id="at-once"),
    ],
)
def test_when_what_happens_after_the_signal(grace: float, margin: float, plan: tuple[float, ...]) -> None:
    made = plan_drain(100.0, grace=grace, margin=margin)
    assert astuple(made) == pytest.approx(plan)
    assert grace == 0 or made.watchdog_at < 100 + grace, "before the SIGKILL"
    assert grace == 0 or made.watchdog_at + made.release_budget_s == pytest.approx(100 + grace), "nor last words"


def test_a_second_signal_brings_the_end_forward_and_never_back() -> None:
    plan = plan_drain(100.0, grace=60, margin=4)
    hurried = plan.hurry(110.0)
    assert hurried.stop_jobs_at == 110.0
    assert astuple(hurried) == pytest.approx((110.0, 111.6, 112.4, 113.0))
    assert plan.hurry(500.0) == plan


# --- outbox


def done(job_id: str, size: int = 10, children: int = 0) -> Completed:
    jobs = [NewJob("c", f"{job_id}-{n}", b"x") for n in range(children)]
    return Completed(job_id, Level.NORMAL, b"x" * size, 1_000, 1, jobs)


def ids(batch: Batch) -> list[str]:
    return [outcome.id for outcome in batch.outcomes]


def test_outcomes_with_children_go_apart_from_others_in_turns() -> None:
    box = Outbox()
    for outcome in (done("a"), done("p", children=1), Cancelled("b", Level.NORMAL, b"", 0), done("r", children=2)):
        box.add(outcome)
    box.add(DeadLettered("d", Level.NORMAL, b"", 0, "fp", b"", [NewJob("m", "n", b"")]))
    first = box.take(0)
    assert (ids(first), first.has_children) == (["a", "b"], False)
    second = box.take(0)
    assert (ids(second), second.has_children) == (["p", "r", "d"], True)
    assert (len(box), box.ready(0)) == (0, False)
    assert ids(box.take(0)) == []


def test_neither_row_starves_the_other() -> None:
    box, taken = Outbox(), []
    for number in range(4):
        box.add(done(f"plain-{number}"))
        box.add(done(f"parent-{number}", children=1))
        batch = box.take(0)
        taken.append(batch.has_children)
        for name in ids(batch):
            box.add(done(f"{name}-next", children=int(batch.has_children)))
    assert taken == [False, True, False, True]


def test_a_refused_batch_waits_at_the_head_of_its_row_while_others_go_on() -> None:
    box = Outbox()
    box.add(done("p", children=1))
    batch = box.take(5.0)
    box.refused(batch, retry_at=6.0)
    box.add(done("later", children=1))
    assert (box.ready(5.5), box.blocked_until, box.blocked) == (False, 6.0, 2)
    box.add(Released("h", Level.NORMAL))
    other = box.take(5.5)
    assert ids(other) == ["h"]
    box.accepted(other)
    assert (box.blocked_until, box.blocked) == (6.0, 2), "that says nothing of those with children"
    again = box.take(6.0)
    assert ids(again) == ["p", "later"]
    box.accepted(again)
    assert (box.blocked_until, box.blocked) == (None, 0)


def test_what_a_full_server_never_took_can_be_given_up() -> None:
    box = Outbox()
    box.add(done("p", children=1))
    box.add(done("a"))
    assert [outcome.id for outcome in box.take_all_with_children()] == ["p"]
    assert len(box) == 1


@pytest.mark.parametrize(
    ("outcomes", "counts"),
    [
        pytest.param([done(str(n)) for n in range(MAX_JOBS_PER_CALL + 1)], [MAX_JOBS_PER_CALL, 1], id="500-at-once"),
        pytest.param([done(str(n), 3_000_000) for n in range(3)], [1, 1, 1], id="4-mib-at-once"),
        pytest.param([done(str(n), 300_000) for n in range(30)], [13, 13, 4], id="4-mib-of-many"),
        pytest.param([done(str(n), children=400) for n in range(3)], [2, 1], id="1000-children-at-once"),
        pytest.param([Rescheduled(str(n), Level.NORMAL, 1, {"errors": b"x"}) for n in range(20)], [20], id="small"),
    ],
)
def test_a_round_trip_is_bounded(outcomes: list[Completed], counts: list[int]) -> None:
    box = Outbox()
    for outcome in outcomes:
        box.add(outcome)
    seen = []
    while box.ready(0):
        seen.append(len(box.take(0).outcomes))
    assert seen == counts
