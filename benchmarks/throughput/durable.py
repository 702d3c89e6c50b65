"""Measures of durable work: steps, signals, jobs that wait without a slot, and children."""

import math
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from benchmarks.throughput.load import Load
from benchmarks.throughput.measures import CUT_OFF, SETTLE_S, Figures, Scale
from benchmarks.throughput.stats import percentile
from benchmarks.throughput.trial import START_S, Slow, Trial

from agentqueue.client import SyncClient

if TYPE_CHECKING:
    from benchmarks.throughput.cases import Case

QUEUE: Final = "bench"
MOST_STEPS: Final = 5_000
"""Steps of one job. A journal holds 10,000."""
SUSPEND_S: Final = 60.0
"""Seconds until all jobs of a case are suspended."""
IDLE_WINDOWS: Final = 5
"""Times `Scale.idle_s` that an idle worker is watched: the kernel counts processor time in hundredths of a second."""
SLOW_SCRIPT_US: Final = 200
"""Microseconds above which the server lists a script."""


def steps(trial: Trial, case: "Case", scale: Scale) -> Figures:
    """Run jobs of many steps, each of which records its end, and take the rate, the time of a step and its costs."""
    rate = trial.installed.side.steps_rate
    size = max(min(round(rate * scale.seconds / case.concurrency), MOST_STEPS, scale.most), 2)
    trial.start_worker(case.concurrency)
    trial.wait_until_ready(case.concurrency)
    probes, total = trial.starts(), size * case.concurrency
    before = trial.counters()
    trial.enqueue(Load(count=case.concurrency, call="steps", size=size))
    trial.wait_for_starts(probes + total, START_S + CUT_OFF * scale.seconds)
    spent = trial.counters().since(before)
    ends = sorted(at for worker in trial.workers for _, at in worker.starts())
    jobs: dict[int, list[int]] = {}
    for worker in trial.workers:
        for number, at in worker.starts():
            jobs.setdefault(number // size, []).append(at)
    if len(ends) < 2:
        raise Slow("less than two steps ended in time")
    times = [(end - begin) / 1e6 for job in jobs.values() for begin, end in pairwise(job)]
    figures = {
        "steps_per_s": (len(ends) - 1) * 1e9 / (ends[-1] - ends[0]),
        "step_p50_ms": percentile(times, 50),
        "step_p99_ms": percentile(times, 99),
        "worker_us_per_step": 1e6 * spent.worker_s / len(ends),
    }
    if trial.installed.side.database:
        return figures
    return figures | {
        "commands_per_step": spent.commands / len(ends),
        "scripts_per_step": spent.scripts / len(ends),
        "bytes_per_step": spent.network_bytes / len(ends),
        "redis_us_per_step": 1e6 * spent.redis_s / len(ends),
    }


def waking(trial: Trial, case: "Case", scale: Scale) -> Figures:
    """Send signals at a pace to suspended jobs, and take the time from before each signal to the handler's start."""
    trial.start_worker(case.concurrency)
    trial.wait_until_ready(case.concurrency)
    _suspend(trial, scale.samples)
    time.sleep(scale.idle_s)
    moments = trial.enqueue(Load(count=scale.samples, call="signal", pace=case.pace, bulk=False)).moments

    def woken() -> Mapping[int, int]:
        return {n: at for worker in trial.workers for n, at in worker.starts() if at > moments.get(n, math.inf)}

    time.sleep(SETTLE_S)
    trial.wait_for(lambda: len(woken()) == scale.samples, START_S)
    waits = [(at - moments[n]) / 1e6 for n, at in woken().items()]
    return {"p50_ms": percentile(waits, 50), "p99_ms": percentile(waits, 99)}


def suspended(trial: Trial, case: "Case", scale: Scale) -> Figures:
    """Watch an idle worker without jobs, and then with suspended ones, which should cost nothing."""
    trial.start_worker(case.concurrency)
    trial.wait_until_ready(case.concurrency)
    without = _watch(trial, scale)
    _suspend(trial, min(case.waiting, scale.most_waiting))
    return {f"empty_{name}": value for name, value in without.items()} | {
        f"suspended_{name}": value for name, value in _watch(trial, scale).items()
    }


def children(trial: Trial, case: "Case", scale: Scale) -> Figures:
    """Let a job gather many children that do nothing, and take the whole time and the longest script."""
    trial.start_worker(case.concurrency)
    trial.wait_until_ready(case.concurrency)
    trial.redis.config_set("slowlog-max-len", 10_000)
    trial.redis.config_set("slowlog-log-slower-than", SLOW_SCRIPT_US)
    trial.redis.slowlog_reset()
    size = min(case.waiting, scale.most)
    trial.enqueue(Load(count=1, call="gather", size=size))
    (worker,) = trial.workers
    trial.wait_for(lambda: bool(worker.end_moments()), START_S)
    scripts = [it["duration"] for it in trial.redis.slowlog_get(10_000) if it["command"].upper().startswith(b"EVALSHA")]
    begin = min(at for n, at in worker.starts() if n == 0)
    return {
        "total_s": (worker.end_moments()[0] - begin) / 1e9,
        "longest_script_ms": max(scripts, default=SLOW_SCRIPT_US) / 1_000,
    }


def _suspend(trial: Trial, count: int) -> None:
    """Send jobs that wait for a signal, and wait until all of them are suspended."""
    trial.enqueue(Load(count=count, call="wait", limit=SUSPEND_S))
    with SyncClient(trial.url) as client:
        trial.wait_for(lambda: client.stats(QUEUE).suspended == count, SUSPEND_S)


def _watch(trial: Trial, scale: Scale) -> Figures:
    """Return what an idle worker costs in a second."""
    time.sleep(scale.idle_s)
    began, before = time.monotonic(), trial.counters()
    time.sleep(IDLE_WINDOWS * scale.idle_s)
    spent, seconds = trial.counters().since(before), time.monotonic() - began
    return {
        "commands_per_s": spent.commands / seconds,
        "worker_ms_per_s": 1_000 * spent.worker_s / seconds,
        "redis_ms_per_s": 1_000 * spent.redis_s / seconds,
    }
