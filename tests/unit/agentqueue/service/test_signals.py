"""SIGTERM at the start of a program, and its end."""

import signal
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
