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
    "steps_per_s": Figure("steps/s", more_is_better=True),
    "step_p50_ms": Figure("a step, p50, ms", 3),
    "step_p99_ms": Figure("a step, p99, ms", 3),
    "scripts_per_step": Figure("round trips/step", 2),
    "commands_per_step": Figure("Redis commands/step", 2),
    "bytes_per_step": Figure("network bytes/step"),
    "redis_us_per_step": Figure("Redis CPU/step, us", 1),
    "worker_us_per_step": Figure("worker CPU/step, us", 1),
    "total_s": Figure("from start to end, s", 2),
    "longest_script_ms": Figure("longest script, ms", 2),
    **{
        f"{state}_{name}": Figure(f"{title}/s, {state}", digits)
        for name, title, digits in (
            ("commands_per_s", "commands", 1),
            ("worker_ms_per_s", "worker CPU ms", 1),
            ("redis_ms_per_s", "Redis CPU ms", 1),
        )
        for state in ("empty", "suspended")
    },
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
