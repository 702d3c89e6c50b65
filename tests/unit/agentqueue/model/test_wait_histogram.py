"""The buckets of waits, as workers, Redis and Prometheus have them."""

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue.model.wait_histogram import BOUNDS_MS, BUCKETS, PREFIX, TOTAL_MS, WAIT_BOUNDS, cumulative


@pytest.mark.parametrize(
    ("wait_ms", "field"),
    [
        (0.0, "wait_le_0.1"),
        (100.0, "wait_le_0.1"),
        (100.5, "wait_le_0.5"),
        (30_000.0, "wait_le_30"),
        (30_001.0, "wait_le_60"),
        (3_600_000.0, "wait_le_3600"),
        (9e9, "wait_le_inf"),
    ],
)
def test_a_wait_is_counted_in_the_bucket_whose_bound_it_does_not_exceed(wait_ms: float, field: str) -> None:
    assert BUCKETS[bisect_left(BOUNDS_MS, wait_ms)] == field


def test_every_field_is_distinguished_from_the_other_counters_by_its_prefix() -> None:
    assert all(field.startswith(PREFIX) for field in (*BUCKETS, TOTAL_MS))
    assert len({*BUCKETS, TOTAL_MS}) == len(WAIT_BOUNDS) + 2


@given(st.lists(st.floats(0, 1e8)))
def test_prometheus_buckets_hold_all_waits_up_to_their_bound(waits_ms: list[float]) -> None:
    counted: dict[str, int] = {TOTAL_MS: round(sum(waits_ms))}
    for wait_ms in waits_ms:
        field = BUCKETS[bisect_left(BOUNDS_MS, wait_ms)]
        counted[field] = counted.get(field, 0) + 1
    buckets, seconds = cumulative(counted)
    for bound, waits in buckets:
        assert waits == sum(wait_ms <= float(bound) * 1000 for wait_ms in waits_ms)
    assert buckets[-1] == ("+Inf", float(len(waits_ms)))
    assert seconds == round(sum(waits_ms)) / 1000
