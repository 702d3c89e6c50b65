"""For every test."""

import asyncio
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.logs import logs_as_before

# Without it, pytest-asyncio's look at "the current event loop" makes one (Python < 3.14) that nobody closes, and its
# ResourceWarning fails whichever test runs when it is collected.
asyncio.set_event_loop(None)

# A shell that starts the tests in the background has them ignore SIGINT, and so every process that they start: those
# that show what Ctrl-C does would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same holds for SIGHUP under nohup, and a shell can't trap a signal that it was started to ignore.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A busy machine is no fault of the code's: pytest-timeout ends what hangs.
settings.register_profile("no-clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no-clock")


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command that runs in a test's process sets up logs, whose stream is closed once the test has ended."""
    with logs_as_before():
        yield
