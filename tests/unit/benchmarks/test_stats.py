import pytest
from benchmarks.throughput.stats import Pace, Spread, advantage, pace, percentile, spread

MS = 1_000_000


def test_spread_is_median_least_and_greatest() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([4.0, 1.0]) == Spread(2.5, 1.0, 4.0)


def test_ratios_are_taken_round_by_round() -> None:
    # The machine was half as fast in the second round: both sides lost, and the ratio did not change.
    assert advantage([200.0, 100.0], [100.0, 50.0], more_is_better=True) == Spread(2.0, 2.0, 2.0)


def test_advantage_is_above_one_where_ours_is_better() -> None:
    assert advantage([2.0], [8.0], more_is_better=False) == Spread(4.0, 4.0, 4.0)
    assert advantage([2.0], [8.0], more_is_better=True) == Spread(0.25, 0.25, 0.25)


def test_rounds_that_one_side_lacks_have_no_pair() -> None:
    assert advantage([10.0, 40.0, 1.0], [5.0, 10.0], more_is_better=True) == Spread(3.0, 2.0, 4.0)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], []), ([1.0], [0.0]), ([0.0], [1.0])])
def test_no_ratio_without_values_above_zero(ours: list[float], theirs: list[float]) -> None:
    assert advantage(ours, theirs, more_is_better=True) is None


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_percentile_of_a_hundred_values(percent: float, value: float) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == value


def test_percentile_is_a_value_that_was_seen() -> None:
    assert percentile([7.0], 99) == 7.0
    assert percentile([1.0, 2.0, 3.0], 99) == 3.0


def test_pace_of_one_process_and_one_slot() -> None:
    assert pace([[0, 10 * MS, 20 * MS, 30 * MS, 40 * MS]], 1) == Pace(100.0, 0.8)


def test_pace_leaves_out_the_first_claim_that_fills_the_slots() -> None:
    # Ten slots, 50 ms jobs: ten start together, then ten more every 50 ms. 200 a second, not 250.
    starts = [wave * 50 * MS for wave in range(5) for _ in range(10)]
    assert pace([starts], 10) == Pace(200.0, 0.8)


def test_pace_begins_when_the_last_process_works() -> None:
    early = [at * MS for at in range(100)]
    late = [at * MS for at in range(50, 100)]
    found = pace([early, late], 1)
    assert found.per_second == pytest.approx(2_000)
    assert found.share == pytest.approx(98 / 150)


@pytest.mark.parametrize("journals", [[], [[]], [[5]], [[5, 5, 5]], [[1, 2, 3], []]])
def test_pace_needs_more_starts_than_slots(journals: list[list[int]]) -> None:
    assert pace(journals, 3) == Pace(0.0, 0.0)
