"""Versions of a queue's workers, and what they have registered."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeptTemplate:
    """The registration of a version of the workers."""

    fingerprint: str
    """Fingerprint of what its workers register; empty if they register nothing (workers of an older release)."""
    at_ms: int
    """When it was kept, in ms since the epoch."""
    jobs: int = 0
    """Number of jobs that it has registered."""


@dataclass(frozen=True, slots=True)
class TemplateState:
    """What a queue knows of a version of its workers."""

    kept: KeptTemplate | None = None
    """None if no worker of this version has registered yet."""
    registered: str = ""
    """Fingerprint of what is registered for the queue at present, by whichever version; empty if nothing is."""
