"""A job that ends returns its value or its error to the parent that waits for it, and nothing if none does."""

import orjson
import pytest

from agentqueue.keys import Level
from agentqueue.model.attempts import AttemptError
from agentqueue.model.child_return import ChildEnd, ChildError, ChildReturn, decode_return
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.job import JobRecord, State, decode_job, encode_job
from agentqueue.model.outcomes import Completed, ParentReturn
from agentqueue.model.result import ResultRecord, encode_result
from agentqueue_worker.domain.outbox import Outbox
from agentqueue_worker.domain.parent_return import return_cancelled, return_completed, return_dead

CHILD = JobRecord("search", ("LIS",), queue="search", parent="P", parent_queue="agents", depth=3)
ALONE = JobRecord("search", ("LIS",), queue="search", parent="P")
ERROR = AttemptError(1, 5, "ValueError", "no seat", "Traceback: …")


def decoded(found: ParentReturn | None) -> ChildReturn:
    assert found is not None
    assert (found.parent, found.queue) == ("P", "agents")
    return decode_return(found.value)


def test_a_completed_job_returns_its_value() -> None:
    result = ResultRecord.of(CHILD, id="c", queue="search", state=State.COMPLETED, result=[1, None], finished_ms=9)
    assert decoded(return_completed(CHILD, encode_result(result))) == ChildReturn([1, None])


def test_a_result_that_is_not_json_is_an_error_of_a_completed_job() -> None:
    error = decoded(return_completed(CHILD, b"\x80\x04pickle")).error
    assert error is not None
    assert (error.state, error.type) == (ChildEnd.COMPLETED, "InvalidResult")


def test_a_dead_job_returns_its_last_error() -> None:
    expected = ChildError(ChildEnd.DEAD, "ValueError", "no seat", "failed")
    assert decoded(return_dead(CHILD, ERROR, DeadLetterReason.FAILED)) == ChildReturn(error=expected)


def test_a_cancelled_job_says_so() -> None:
    error = decoded(return_cancelled(CHILD)).error
    assert error is not None
    assert error.state is ChildEnd.CANCELLED


def test_a_job_that_nobody_waits_for_returns_nothing() -> None:
    assert return_completed(ALONE, b"") is None
    assert return_dead(ALONE, ERROR, DeadLetterReason.FAILED) is None
    assert return_cancelled(ALONE) is None


def test_the_record_of_a_child_begins_with_its_parent_and_comes_back() -> None:
    raw = encode_job(CHILD)
    assert raw.startswith(b'{"aq":1,"up":["P","agents",3],')
    found = decode_job(raw)
    assert (found.parent, found.parent_queue, found.depth) == ("P", "agents", 3)
    assert decode_job(encode_job(ALONE)).parent_queue is None


@pytest.mark.parametrize("up", [1, [1], ["P", "q"], ["P", "q", "1"], ["P", None, 1]])
def test_another_parent_is_no_job(up: object) -> None:
    raw = orjson.dumps({"aq": 1, "up": up, "t": None, "f": "job", "a": [], "k": {}, "et": 1})
    with pytest.raises(ValueError, match="up must be"):
        decode_job(raw)


def test_a_round_trip_returns_50_jobs_to_parents_at_most() -> None:
    outbox = Outbox()
    for number in range(120):
        returns = ParentReturn("P", "agents", b'{"v":1}')
        outbox.add(Completed(str(number), Level.NORMAL, b"{}", 0, 5, returns=returns))
    assert [len(outbox.take(0.0).outcomes) for _ in range(3)] == [50, 50, 20]
