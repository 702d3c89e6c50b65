"""Definitions of limits: what is allowed, and how Redis holds them."""

from typing import Any

import pytest

from agentqueue.errors import InvalidName, UsageError
from agentqueue.model.limits import (
    Limit,
    check_limit_names,
    decode_limit,
    encode_limit,
    limit_to_json,
    parse_limit,
    parse_limits,
)

FULL = {
    "requestsPerMinute": 500,
    "unitsPerMinute": 90_000,
    "concurrent": 40,
    "burst": 50,
    "defaultUnits": 2_000,
    "headroomPercent": 5,
    "maxThrottledSeconds": 600,
    "windowSeconds": 6,
    "per": "tenant",
    "refund": False,
}


def test_a_limit_comes_back_from_redis_as_it_was() -> None:
    limit = parse_limit(FULL)
    assert decode_limit(encode_limit(limit, "shop/main")) == (limit, "shop/main")
    assert limit_to_json(limit) == FULL
    assert limit.bucket_ms == 100


def test_what_a_limit_leaves_out_is_not_written() -> None:
    assert limit_to_json(Limit(concurrent=2)) == {"concurrent": 2}
    assert encode_limit(parse_limit({"concurrent": 2, "per": None}), "up") == b'{"concurrent":2,"source":"up"}'


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs requestsPerMinute, unitsPerMinute or concurrent"),
        ({"concurrent": 0}, "`concurrent` must be a whole number from 1"),
        ({"concurrent": True}, "not True"),
        ({"requestsPerMinute": 1.5}, "not 1.5"),
        ({"concurrent": 1, "burst": 3}, "`burst` needs requestsPerMinute"),
        ({"concurrent": 1, "defaultUnits": 3}, "`defaultUnits` needs a unitsPerMinute"),
        ({"unitsPerMinute": 2, "defaultUnits": 3}, "must not exceed it"),
        ({"concurrent": 1, "per": "user"}, "`per` must be tenant"),
        ({"concurrent": 1, "refund": 1}, "`refund` must be true or false"),
        ({"concurrent": 1, "headroomPercent": -1}, "`headroomPercent` must be a number from 0 to 1000"),
        ({"concurrent": 1, "maxThrottledSeconds": "x"}, "`maxThrottledSeconds` must be"),
        ({"concurrent": 1, "size": 1}, "a limit has no field 'size'"),
    ],
)
def test_a_wrong_limit_is_refused_with_the_field(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_limit(given)
    assert message in str(error.value)


def test_a_list_has_definitions_and_names() -> None:
    defined, names = parse_limits([{"name": "gpt", "concurrent": 2}, "crm"])
    assert (defined, names) == ({"gpt": Limit(concurrent=2)}, ("gpt", "crm"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "gpt"}, "limits must be a list"),
        (["a"] * 101, "at most 100"),
        (["a", {"name": "a", "concurrent": 1}], "'a' is there twice"),
        ([{"name": "a", "concurrent": 0}], "limit 'a': `concurrent`"),
        ([{"concurrent": 1}], "limit name None"),
        ([7], "limit name 7"),
    ],
)
def test_a_wrong_list_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_limits(given)
    assert message in str(error.value)


def test_names_of_a_call_are_sorted_and_checked() -> None:
    assert check_limit_names(["b", "a"]) == ("a", "b")
    for names in ([], ["a", "a"], [f"a{number}" for number in range(11)]):
        with pytest.raises(UsageError):
            check_limit_names(names)
    with pytest.raises(InvalidName, match="lower-case"):
        check_limit_names(["GPT"])
