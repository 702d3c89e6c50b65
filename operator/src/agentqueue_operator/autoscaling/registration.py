"""Decides whether the present version of an agent's workers has registered its jobs and schedules. Pure.

A version is a pod template on Kubernetes, or the code that `agentqueue up` runs. Its workers register when they start.
One pod runs until one has: crons and job names are known before the first job, and an import error shows.
"""

from collections.abc import Set as AbstractSet
from enum import StrEnum


class RegistrationStep(StrEnum):
    """What to do about the registration of the present version."""

    NOTHING = "nothing"
    """It has registered."""
    KEEP = "keep"
    """It has registered now: keep that, so that a rollback to this version needs no pod."""
    KEEP_NONE = "keep-none"
    """It has a worker, of a release that registers nothing: keep that, so that no other pod runs for it."""
    RESTORE = "restore"
    """It registered earlier, and another version has since: register the kept one again."""
    RUN_ONE = "run-one"
    """It has not registered: run one pod until it has."""


def registration_step(*, kept: str | None, registered: str, heard: AbstractSet[str | None]) -> RegistrationStep:
    """Return what to do about the registration of the present version.

    Args:
        kept: fingerprint of what this version registered earlier; empty if it registers nothing, None if unknown.
        registered: fingerprint of what is registered for the queue, by whichever version; empty if nothing is.
        heard: fingerprints that live workers of this version report; None for a worker that registers nothing.
    """
    named = {fingerprint for fingerprint in heard if fingerprint}
    if registered in named and kept != registered:
        return RegistrationStep.KEEP
    if kept is None:
        # Workers of this version that others keep from registering try again until those have ended.
        return RegistrationStep.KEEP_NONE if heard and not named else RegistrationStep.RUN_ONE
    return RegistrationStep.RESTORE if kept and kept != registered and not named else RegistrationStep.NOTHING
