"""Lets old jobs start before jobs of higher priority, for up to a quarter of the starts (rule 6)."""

from typing import Final

STARTS_PER_AGED: Final = 4
"""Starts that earn one start by age (STARTS_PER_AGED in claims.lua).

Three of four starts follow priorities strictly, and no ready job waits forever.
"""
MAX_CREDIT: Final = STARTS_PER_AGED
"""Maximum saved credit, in starts: one start by age, however long no job was old."""


class AgeCredit:
    """Credit for starts by age before priority, in starts. Each start earns one, and a start by age costs four.

    A round trip also spends what its own starts earn: the script puts each job that it claims by age behind the starts
    that pay for it.
    """

    __slots__ = ("_credit",)

    def __init__(self) -> None:
        self._credit = 0

    def offer(self, want: int, *, some_may_be_old: bool) -> int:
        """Return the credit of the next round trip, which claims up to `want` jobs.

        If no job can be old, it is a debt that these starts don't pay. So the script does not look for old jobs, which
        takes three commands, and an idle worker asks twice a second.
        """
        return self._credit if some_may_be_old else -want

    def settle(self, *, started: int, aged: int) -> None:
        """Update the credit after a claim of `started` jobs, `aged` of them by age.

        The credit is negative after a claim of fewer jobs than wanted, most of them old. The next starts pay for it.
        """
        self._credit = min(self._credit + started - STARTS_PER_AGED * aged, MAX_CREDIT)
