"""Log lines of any values."""

import logging

import orjson
import pytest
import structlog

from agentqueue.service.logging import set_up_logs


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


VALUES = {
    "numbers_as_keys": {1: 5},
    "tuples_as_keys": {(1, 2): 5},
    "over_64_bits": 2**64,
    "lone_surrogate": "\ud83d",
    "rude": Rude(),
    "list_of_rude": [Rude()],
    "error": ValueError("no"),
}


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_cant_be_written_is_written_as_text(
    capfd: pytest.CaptureFixture[str], form: str, name: str
) -> None:
    set_up_logs("info", form)
    structlog.get_logger().info("output", good=1, value=VALUES[name])
    logging.getLogger("theirs").warning("output %s", name, extra={"value": VALUES[name]})
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("output" in line for line in lines)
    if form == "json":
        first = orjson.loads(lines[0])
        assert (first["event"], first["good"]) == ("output", 1)
        assert "value" in first
