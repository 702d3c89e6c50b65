"""Results and dead letters that other clients wrote, or that can't be read."""

from typing import Any

import orjson
import pytest

from agentqueue.errors import InvalidPayload
from agentqueue.keys import KeySpace
from agentqueue.wire import ResultRecord, State, decode_dead, decode_result, encode_result


def result(value: Any = None, *, success: bool = True, args: tuple[Any, ...] = (), **kwargs: Any) -> ResultRecord:
    return ResultRecord(
        id="a",
        name="job",
        queue="q",
        success=success,
        result=value,
        started_ms=1,
        finished_ms=2,
        args=args,
        kwargs=kwargs,
    )


@pytest.mark.parametrize(
    ("record", "data"),
    [
        pytest.param(result(args=({"a": 1},)), {"a": 1}, id="one-argument"),
        pytest.param(result(args=(1, 2)), [1, 2], id="several"),
        pytest.param(result(), None, id="none"),
        pytest.param(result(args=(1,), b=2), {"args": [1], "kwargs": {"b": 2}}, id="with-names"),
    ],
)
def test_a_results_payload_is_what_was_sent(record: ResultRecord, data: Any) -> None:
    assert record.data == data


@pytest.mark.parametrize(
    ("record", "line"),
    [
        pytest.param(result("x"), None, id="completed"),
        pytest.param(result(ValueError("no"), success=False), "ValueError: no", id="an-exception"),
        pytest.param(result({"$exc": "KeyError", "args": ["k"]}, success=False), "KeyError: k", id="an-encoded-one"),
        pytest.param(result("gone", success=False), "gone", id="anything-else"),
    ],
)
def test_why_a_job_is_not_completed_in_one_line(record: ResultRecord, line: str | None) -> None:
    assert record.error == line


def test_a_large_record_with_a_small_result_is_kept() -> None:
    """The limit is the result's: arguments, which it carries along, had a limit of their own."""
    assert len(encode_result(result(1, args=("x" * 2_000,)), max_bytes=1_000)) > 2_000
    with pytest.raises(InvalidPayload, match=r"over the limit of 1,000; store the bulk elsewhere"):
        encode_result(result("x" * 2_000), max_bytes=1_000)


@pytest.mark.parametrize(
    ("wire", "state"),
    [
        pytest.param({"s": True, "r": 1}, State.COMPLETED, id="success"),
        pytest.param({"s": False, "r": {"$exc": "CancelledError", "args": []}}, State.CANCELLED, id="cancelled"),
        pytest.param({"s": False, "r": {"$exc": "ValueError", "args": []}}, State.DEAD, id="failed"),
    ],
)
def test_the_state_of_a_result_that_a_plain_arq_worker_wrote(wire: dict[str, Any], state: State) -> None:
    plain = {"t": 1, "f": "job", "a": [], "k": {}, "et": 1, "st": 2, "ft": 3, "q": "q", "id": "a", **wire}
    assert decode_result(orjson.dumps(plain)).state is state


@pytest.mark.parametrize("raw", [b"{", b"[]", b"{}", b'{"errors": [], "reason": "none such"}'])
def test_what_is_no_dead_letter_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidPayload, match="the dead letter is not one"):
        decode_dead(raw)


@pytest.mark.parametrize("raw", [b"{", b'{"s": 1}', b"[1]"])
def test_what_is_no_result_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidPayload, match="the job's result is not one"):
        decode_result(raw)


def test_the_history_has_a_key() -> None:
    assert KeySpace("q").done == "q:done"
