"""Jobs that wait for a slot: priorities hold, and none waits forever."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from agentqueue.keys import Level
from agentqueue.model.outcomes import Claimed
from agentqueue_worker.domain.start_order import MAX_OVERTAKEN, merge_claimed

LEVELS = {level.label[0]: level for level in Level}


def jobs(names: str) -> list[Claimed]:
    """Return jobs whose names begin with the first letter of their level."""
    return [Claimed(name, LEVELS[name[0]], 1.0, b"{}", 0, {}, cancel=False) for name in names.split()]


def names(claimed: deque[Claimed]) -> str:
    return " ".join(job.id for job in claimed)


def test_urgent_jobs_pass_what_was_claimed_ahead_before_them() -> None:
    assert names(merge_claimed(deque(jobs("n1 n2 l1")), jobs("u1 h1 n3"))) == "u1 h1 n1 n2 n3 l1"


def test_jobs_of_one_claim_keep_their_order_since_the_first_were_claimed_by_age() -> None:
    assert names(merge_claimed(deque(jobs("n1")), jobs("l1 u1 n2"))) == "n1 l1 u1 n2"
    assert names(merge_claimed(deque(), jobs("l1 u1"))) == "l1 u1"


def test_the_next_job_is_passed_three_times_at_most() -> None:
    waiting = deque(jobs("n1 n2"))
    for claim in ("u1 u2", "u3 u4"):
        waiting = merge_claimed(waiting, jobs(claim))
    assert names(waiting) == "u1 u2 u3 n1 u4 n2"


@given(st.lists(st.lists(st.sampled_from("uhnl"), max_size=6), max_size=20), st.integers(1, 4))
def test_each_claimed_job_starts_once_and_within_a_bound(claims: list[list[str]], slots: int) -> None:
    waiting, started, ahead, total = deque[Claimed](), list[str](), dict[str, int](), 0
    for claim in claims:
        new = jobs(" ".join(f"{letter}{total + at}" for at, letter in enumerate(claim)))
        total += len(new)
        for at, job in enumerate(new):
            ahead[job.id] = len(started) + (len(waiting) + at + 1) * (MAX_OVERTAKEN + 1)
        waiting = merge_claimed(waiting, new)
        started += [waiting.popleft().id for _ in range(min(slots, len(waiting)))]
    started += [job.id for job in waiting]
    assert len(started) == len(set(started)) == total
    assert all(started.index(job_id) < bound for job_id, bound in ahead.items())
