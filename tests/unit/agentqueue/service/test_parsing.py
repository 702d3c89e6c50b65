"""How numbers and words of settings are read."""

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
def test_what_is_in_range_is_read(parse: Callable[[str], Any], text: str, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("text", ["abc", "", "inf", "-inf", "nan", "1e300", "-1", "315360001", "1,5"])
def test_a_duration_is_finite_and_the_refusal_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a number from 0 to 315360000 seconds$"):
        parsing.seconds()(text)


@pytest.mark.parametrize("text", ["abc", "", "0", "101", "5.0", "inf", "²", "9" * 5_000])
def test_a_whole_number_s_refusal_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a whole number from 1 to 100$"):
        parsing.whole(1, 100)(text)


def test_a_number_s_bounds_are_told_as_people_write_them() -> None:
    with pytest.raises(ValueError, match=r"^must be a number from 0\.001 to 86400$"):
        parsing.number(0.001, 86_400)("x")
