"""SIGTERM at the start of a program, and its end."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agentqueue.service.signals import sigterm_is_blocked, unblock_sigterm


@pytest.fixture
def received() -> Iterator[list[int]]:
    """Yield the signals that a handler gets. SIGTERM is blocked at first; the earlier state is restored at the end."""
    found: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: found.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    yield found
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGTERM, before)


def test_a_blocked_sigterm_is_handled_when_it_is_unblocked(received: list[int]) -> None:
    signal.raise_signal(signal.SIGTERM)  # to this thread: others of the test runner do not block it
    assert (sigterm_is_blocked(), received) == (True, [])
    unblock_sigterm()
    assert (sigterm_is_blocked(), received) == (False, [signal.SIGTERM])
    unblock_sigterm()
    assert received == [signal.SIGTERM]


def test_other_signals_stay_blocked(received: list[int]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    unblock_sigterm()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGUSR1}


def test_a_platform_without_signal_masks_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "pthread_sigmask")
    assert not sigterm_is_blocked()
    unblock_sigterm()


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_pending_sigterm_ends_the_program_with_the_given_exit_code() -> None:
    done = run(
        "import signal\n"
        "from agentqueue.service.signals import exit_on_sigterm\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "exit_on_sigterm(7)\n"
        "print('still running')\n"
    )
    assert (done.returncode, done.stdout) == (7, "")


def test_an_immediate_exit_writes_buffered_output_and_waits_for_no_thread() -> None:
    done = run(
        "import threading\n"
        "from agentqueue.service.signals import exit_now\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "print('buffered', end='')\n"
        "exit_now(3)\n"
    )
    assert (done.returncode, done.stdout) == (3, "buffered")
