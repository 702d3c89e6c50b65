"""Figures that cases measure: names, units, and which direction is better."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Figure:
    """One kind of figure."""

    title: str
    digits: int = 0
    more_is_better: bool = False


FIGURES: Final = {
    "jobs_per_s": Figure("jobs/s", more_is_better=True),
    "of_ideal": Figure("% of ideal", 1, more_is_better=True),
    "sent_per_s": Figure("enqueued/s", more_is_better=True),
    "p50_ms": Figure("p50, ms", 2),
    "p99_ms": Figure("p99, ms", 2),
    "commands_per_job": Figure("Redis commands/job", 2),
    "bytes_per_job": Figure("network bytes/job"),
    "redis_us_per_job": Figure("Redis CPU/job, us", 1),
    "worker_us_per_job": Figure("worker CPU/job, us", 1),
    "waiting_bytes": Figure("Redis bytes/waiting job"),
    "finished_bytes": Figure("Redis bytes/finished job"),
    "recovery_s": Figure("recovery, s", 2),
    "recovered_percent": Figure("% recovered", more_is_better=True),
    "drain_s": Figure("drain, s", 2),
    "run_twice": Figure("jobs started twice"),
    "unfinished": Figure("jobs not finished"),
    "import_ms": Figure("import, ms"),
    "start_ms": Figure("start to first job, ms"),
    "resident_mb": Figure("worker memory, MB", 1),
    "idle_commands_per_s": Figure("idle commands/s", 1),
    "counted_percent": Figure("% of jobs counted"),
}
PRIVATE: Final = frozenset({"counted_percent"})
"""Figures about a run itself: they have no ratio and no place in tables."""
