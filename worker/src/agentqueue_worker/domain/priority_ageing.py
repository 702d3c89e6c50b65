"""Lets old jobs start before jobs of higher priority, for up to a quarter of the starts (rule 6)."""

from typing import Final

AGED_SHARE: Final = 0.25
"""Maximum share of starts that go to jobs which have waited longer than their level's limit.

Three of four starts follow priorities strictly, and no ready job waits forever.
"""
MAX_CREDIT: Final = 25.0
"""Maximum saved credit, in jobs, so that old jobs cannot take every slot after a long run of high-priority jobs."""


class AgeCredit:
    """Number of next claims that may go by age before priority. Each start earns a quarter of one."""

    __slots__ = ("_credit",)

    def __init__(self) -> None:
        self._credit = 0.0

    def offer(self, want: int) -> int:
        """Return how many of `want` claims may go by age."""
        return min(want, int(self._credit))

    def settle(self, *, offered: int, started: int) -> None:
        """Update the credit after a claim. Offered claims cost credit if jobs started, and each start earns some."""
        self._credit = min(self._credit - min(offered, started) + started * AGED_SHARE, MAX_CREDIT)
