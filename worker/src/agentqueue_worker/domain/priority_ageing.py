"""Rule 6: no ready job waits for ever, and yet priorities are strict for three starts of four."""

from typing import Final

AGED_SHARE: Final = 0.25
"""Of the starts, at most this share goes to jobs that have waited over their level's limit."""
MAX_CREDIT: Final = 25.0
"""Credit is saved up to this: after a long strict stretch not all starts of a while go to old jobs."""


class AgeCredit:
    """How many of the next claims may go by age before priority: a quarter of a start is earned with each start."""

    __slots__ = ("_credit",)

    def __init__(self) -> None:
        self._credit = 0.0

    def offer(self, want: int) -> int:
        """Of `want` claims, so many by age."""
        return min(want, int(self._credit))

    def settle(self, *, offered: int, started: int) -> None:
        """After a claim: what was offered is spent (as far as jobs started), what started earns."""
        self._credit = min(self._credit - min(offered, started) + started * AGED_SHARE, MAX_CREDIT)
