"""agentqueue.arq: what arq's clients write and read, without arq."""

import asyncio
import functools
import json
import subprocess
import sys
from typing import Any

import pytest

from agentqueue import errors
from agentqueue.arq import JobExecutionFailed, decode_exception, dumps, loads
from agentqueue.errors import InvalidPayload

JOB = {"t": None, "f": "search", "a": ("BER", 2), "k": {"on": "2026-11-24"}, "et": 1_700_000_000_000}


def result_of(value: Any, *, success: bool) -> dict[str, Any]:
    ends = {"s": success, "r": value, "st": 1, "ft": 2, "q": "arq:queue", "id": "one"}
    return {**JOB, "t": 1, **ends}


def test_a_job_comes_back_as_it_was_sent_with_its_arguments_as_a_tuple() -> None:
    assert loads(dumps(JOB)) == JOB


def test_a_job_is_plain_json() -> None:
    assert json.loads(dumps(JOB)) == {**JOB, "a": ["BER", 2]}


@pytest.mark.parametrize("value", [None, 1, "x", [1, 2], {"a": {"b": [None]}}, {"$exc": "ValueError", "args": []}])
def test_a_result_comes_back_as_it_was_sent(value: Any) -> None:
    assert loads(dumps(result_of(value, success=True)))["r"] == value


@pytest.mark.parametrize(
    "exc",
    [
        pytest.param(ValueError("no airport", 7), id="builtin"),
        pytest.param(TimeoutError(), id="timeout"),
        pytest.param(KeyError("x"), id="key-error"),
        pytest.param(asyncio.CancelledError(), id="cancelled"),
        pytest.param(errors.JobFailed("dead"), id="ours"),
        pytest.param(JobExecutionFailed("job expired"), id="job-execution-failed"),
    ],
)
def test_an_exception_comes_back_as_its_own_class(exc: BaseException) -> None:
    found = loads(dumps(result_of(exc, success=False)))["r"]
    assert (type(found).__name__, found.args) == (type(exc).__name__, exc.args)
    assert isinstance(found, type(exc)) or isinstance(exc, JobExecutionFailed)


class OwnError(Exception):
    pass


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        pytest.param(OwnError("row", 12), "OwnError: row, 12", id="unknown-class"),
        pytest.param(OwnError(), "OwnError", id="without-arguments"),
        pytest.param(
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "UnicodeDecodeError: utf-8, ", id="constructor"
        ),
        pytest.param(SystemExit(3), "SystemExit: 3", id="exits-are-never-rebuilt"),
        pytest.param(KeyboardInterrupt(), "KeyboardInterrupt", id="nor-interrupts"),
    ],
)
def test_another_exception_comes_back_as_job_execution_failed(exc: BaseException, text: str) -> None:
    found = loads(dumps(result_of(exc, success=False)))["r"]
    assert type(found).__name__ == "JobExecutionFailed"
    assert isinstance(found, RuntimeError)
    assert str(found).startswith(text)


@pytest.mark.parametrize("name", ["print", "eval", "__import__", "os.system", "", "object", "Server", "annotations"])
def test_a_name_that_is_no_exception_is_not_called(name: str) -> None:
    assert type(decode_exception({"$exc": name, "args": ["x"]})).__name__ == "JobExecutionFailed"


@pytest.mark.parametrize("value", ["unable to serialize result", None, {"$exc": "ValueError"}, {"args": []}])
def test_a_failures_result_that_is_no_exception_stays(value: Any) -> None:
    assert loads(dumps(result_of(value, success=False)))["r"] == value


def test_arguments_that_are_no_list_are_taken_as_one() -> None:
    found = decode_exception({"$exc": "ValueError", "args": "text"})
    assert (type(found), found.args) == (ValueError, ("text",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"a": ({1, 2},)}, "is of the type set", id="set"),
        pytest.param({"k": {"price": float("nan")}}, "nan", id="nan"),
        pytest.param({"k": {"x": object()}}, "is of the type object", id="object"),
        pytest.param({"a": ("x" * 2_000_000,)}, "over the limit", id="too-large"),
    ],
)
def test_what_json_cannot_say_is_refused_at_enqueue(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidPayload, match=message):
        dumps({**JOB, **changes})


def test_the_limit_can_be_set() -> None:
    with pytest.raises(InvalidPayload, match="over the limit of 20"):
        functools.partial(dumps, max_bytes=20)(JOB)


@pytest.mark.parametrize("raw", [b"", b"\x80\x04N.", b"[]", b"{}", b'{"f":"x","a":{},"k":{}}'])
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidPayload, match="the record is not"):
        loads(raw)


def test_importing_it_does_not_import_arq() -> None:
    code = "import sys, agentqueue.arq as a; print(a.decode_exception({'$exc': 'X', 'args': []}), 'arq' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "X False\n"


def test_without_arq_job_execution_failed_is_a_job_failed_of_ours() -> None:
    code = (
        "from agentqueue.arq import *; from agentqueue import arq, errors\n"
        "e = arq.decode_exception({'$exc': 'JobExecutionFailed', 'args': ['job expired']})\n"
        "assert type(e) is arq.JobExecutionFailed and isinstance(e, errors.JobFailed), e"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
