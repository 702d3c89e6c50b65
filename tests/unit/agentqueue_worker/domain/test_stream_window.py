"""Which batches of a stream stay."""

import pytest

from agentqueue.model.stream import MAX_EVENTS, MAX_STREAM_BYTES
from agentqueue_worker.domain.stream_window import StreamWindow


@pytest.fixture
def window() -> StreamWindow:
    """Three batches of half the events that a stream keeps."""
    window = StreamWindow()
    for number in range(3):
        window.add(f"1-{number}", first=number * MAX_EVENTS // 2, size=10)
    return window


def test_the_last_events_stay_and_up_to_a_batch_more(window: StreamWindow) -> None:
    assert window.trim(3 * MAX_EVENTS // 2 - 1) == ""
    assert window.trim(3 * MAX_EVENTS // 2) == "1-1"
    assert window.trim(3 * MAX_EVENTS // 2) == ""


def test_large_events_go_earlier_but_the_last_batch_stays(window: StreamWindow) -> None:
    window.add("1-3", first=3 * MAX_EVENTS // 2, size=MAX_STREAM_BYTES)
    assert window.trim(3 * MAX_EVENTS // 2 + 1) == "1-3"


def test_what_a_rewind_drops_takes_no_room(window: StreamWindow) -> None:
    window.add("1-3", first=3 * MAX_EVENTS // 2, size=MAX_STREAM_BYTES)
    window.rewind(MAX_EVENTS)
    window.add("2-0", first=MAX_EVENTS, size=10)
    assert window.trim(MAX_EVENTS + 1) == ""
