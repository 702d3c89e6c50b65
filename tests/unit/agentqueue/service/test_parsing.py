"""Parsers of settings: numbers, durations and words."""

from collections.abc import Callable
from typing import Any

import pytest

from agentqueue.model.retry_policy import MAX_DURATION_S
from agentqueue.service import parsing


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parsing.number(0.5, 300), "0.5", 0.5),
        (parsing.number(0, 1), "1", 1.0),
        (parsing.seconds(), "3e2", 300.0),
        (parsing.seconds(), str(MAX_DURATION_S), MAX_DURATION_S),
        (parsing.whole(1, 10_000), "10000", 10_000),
        (parsing.one_of("json", "console"), "JSON", "json"),
    ],
)
def test_values_in_range_are_parsed(parse: Callable[[str], Any], text: str, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("text", ["abc", "", "inf", "-inf", "nan", "1e300", "-1", "315360001", "1,5"])
def test_an_invalid_duration_is_refused_with_the_allowed_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a number from 0 to 315360000 seconds$"):
        parsing.seconds()(text)


@pytest.mark.parametrize("text", ["abc", "", "0", "101", "5.0", "inf", "²", "9" * 5_000])
def test_an_invalid_whole_number_is_refused_with_the_allowed_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a whole number from 1 to 100$"):
        parsing.whole(1, 100)(text)


def test_bounds_are_written_without_exponents() -> None:
    with pytest.raises(ValueError, match=r"^must be a number from 0\.001 to 86400$"):
        parsing.number(0.001, 86_400)("x")
