"""Which errors of providers let a job snooze, and for how long."""

from email.utils import formatdate
from typing import Any

import httpx
import openai
import pytest

from agentqueue import Snooze, StepFailed
from agentqueue.integrations.busy import snooze_for, snooze_when_busy
from agentqueue.testing import context

NOW_S = 1_800_000_000.0
REQUEST = httpx.Request("POST", "http://model/v1/chat/completions")


def of_httpx(status: int, **headers: str) -> httpx.HTTPStatusError:
    response = httpx.Response(status, headers=named(headers), request=REQUEST)
    return httpx.HTTPStatusError(f"{status}", request=REQUEST, response=response)


def of_openai(status: int, **headers: str) -> openai.APIStatusError:
    response: Any = httpx.Response(status, headers=named(headers), request=REQUEST)  # or of httpx2, its successor
    return openai.APIStatusError("busy", response=response, body=None)


class OfPydanticAI(Exception):
    """Has its status itself, and its headers with names in lower case."""

    def __init__(self, status: int, **headers: str) -> None:
        self.status_code = status
        self.headers = named(headers)


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def caused_by(cause: Exception) -> Exception:
    error = RuntimeError("the agent failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("make", [of_httpx, of_openai, OfPydanticAI])
@pytest.mark.parametrize(
    ("status", "headers", "after"),
    [
        (429, {"retry_after": "7"}, 7.0),
        (429, {"retry_after": "0.5"}, 0.5),
        (429, {"retry_after": "0"}, 0.1),
        (429, {"retry_after": "86400"}, 3600.0),
        (429, {"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        (429, {"retry_after": formatdate(NOW_S + 90, usegmt=True)}, 90.0),
        (429, {"retry_after": formatdate(NOW_S - 90, usegmt=True)}, 0.1),
        (429, {"retry_after": "soon"}, 8.0),
        (429, {"retry_after": "-3"}, 8.0),
        (429, {"retry_after": "nan"}, 8.0),
        (429, {}, 8.0),
        (500, {}, 8.0),
        (503, {"retry_after": "3"}, 3.0),
        (529, {}, 8.0),
    ],
)
def test_a_busy_provider_lets_the_job_snooze(make: Any, status: int, headers: dict[str, str], after: float) -> None:
    snooze = snooze_for(make(status, **headers), starts=3, now_s=NOW_S)
    assert snooze is not None
    assert snooze.after == pytest.approx(after)
    assert str(snooze).startswith(f"the provider answers {status}: ")


@pytest.mark.parametrize(
    "error",
    [
        of_httpx(400),
        of_openai(401),
        OfPydanticAI(404),
        OfPydanticAI(501),
        httpx.ConnectError("refused"),
        ValueError("429"),
        caused_by(ValueError("429")),
        ExceptionGroup("both", [ValueError("a"), of_httpx(422)]),
    ],
)
def test_other_errors_do_not(error: Exception) -> None:
    assert snooze_for(error, starts=1, now_s=NOW_S) is None


@pytest.mark.parametrize(("starts", "after"), [(1, 2.0), (2, 4.0), (5, 32.0), (6, 60.0), (500, 60.0)])
def test_without_a_retry_after_the_delay_doubles_with_each_start_up_to_a_minute(starts: int, after: float) -> None:
    snooze = snooze_for(of_httpx(500), starts=starts, now_s=NOW_S)
    assert snooze is not None
    assert snooze.after == after


@pytest.mark.parametrize(
    "error",
    [
        caused_by(of_httpx(429)),
        ExceptionGroup("both models", [ValueError("a"), ExceptionGroup("second", [of_openai(503)])]),
    ],
)
def test_causes_and_the_errors_of_a_group_count(error: Exception) -> None:
    assert snooze_for(error, starts=1, now_s=NOW_S) is not None


def test_the_outcome_of_a_step_that_runs_once_is_final() -> None:
    failed = StepFailed("pay#1", "HTTPStatusError", "429")
    failed.__cause__ = of_httpx(429)
    assert snooze_for(failed, starts=1, now_s=NOW_S) is None


def test_a_circle_of_causes_ends() -> None:
    error = ValueError("a")
    error.__cause__ = caused_by(error)
    assert snooze_for(error, starts=1, now_s=NOW_S) is None


async def test_the_block_raises_a_snooze_in_place_of_the_error_and_others_unchanged() -> None:
    with pytest.raises(Snooze, match="the provider answers 429") as caught:
        async with snooze_when_busy(context(delivery=2)):
            raise of_httpx(429)
    assert caught.value.after == 4.0
    assert isinstance(caught.value.__cause__, httpx.HTTPStatusError)
    with pytest.raises(ZeroDivisionError):
        async with snooze_when_busy(context()):
            raise ZeroDivisionError
