"""Measures that cases share: each function runs a trial and returns the figures of one round. All have bounds."""

import contextlib
import math
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.throughput.load import Load
from benchmarks.throughput.stats import pace, percentile
from benchmarks.throughput.trial import START_S, Counters, Slow, Trial

if TYPE_CHECKING:
    from benchmarks.throughput.cases import Case

Figures = dict[str, float]
CUT_OFF: Final = 1.5
"""Times the aimed length after which a run ends: at 1 job at a time a side is slower than its rate in the registry."""
SETTLE_S: Final = 0.2
"""Seconds from the last send of a paced load until its jobs have usually started; nothing polls meanwhile."""
MOST_BYTES: Final = 200_000_000
"""Bytes of payload that one run stores."""
LEAST_FOR_COST: Final = 200
"""Jobs below which a cost per job would be noise."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Size of the runs.

    Attributes:
        seconds: time that a run of jobs aims at; it is cut off after CUT_OFF times that.
        most: most jobs of a run, unless the case names a count.
        most_waiting: most jobs of a backlog that a case names.
        lay_s: seconds in which a backlog must be enqueued.
        samples: jobs whose delay is measured one by one.
        idle_s: seconds to watch an idle worker, and to wait until a worker is idle.
        imports: times that an import is measured.
        recovery_s: seconds to wait for the jobs of a killed worker.
    """

    seconds: float = 3.0
    most: int = 200_000
    most_waiting: int = 1_000_000
    lay_s: float = 120.0
    samples: int = 200
    idle_s: float = 1.0
    imports: int = 3
    recovery_s: float = 90.0


def throughput(trial: Trial, case: "Case", scale: Scale) -> Figures:
    """Lay a backlog, start the workers, and take the rate between the first and the last start."""
    count = min(case.waiting, scale.most_waiting) or _count(trial, case, scale)
    backlog = Load(
        count=count,
        seconds=case.seconds,
        payload_bytes=case.payload_bytes,
        bulk=True,
        limit=scale.lay_s,
    )
    sent = trial.enqueue(backlog).sent
    if case.waiting and sent < count:
        raise Slow(f"enqueued {sent:,} of {count:,} jobs in time: {scale.lay_s:.0f} s would not do")
    workers = [trial.start_worker(case.concurrency) for _ in range(case.processes)]
    trial.wait_for(lambda: trial.starts() >= sent or all(it.journal.exists() for it in workers), START_S)
    before = trial.counters()
    trial.wait_for_starts(sent, CUT_OFF * scale.seconds)
    after = trial.counters()
    found = pace([[at for _, at in worker.starts()] for worker in workers], case.concurrency)
    figures = {"counted_percent": 100 * found.share} | ({"jobs_per_s": found.per_second} if found.share else {})
    if case.seconds and found.share:
        figures["of_ideal"] = 100 * found.per_second * case.seconds / case.concurrency / case.processes
    return figures | _costs(before, after)


def enqueueing(trial: Trial, case: "Case", scale: Scale) -> Figures:
    """Send jobs, with no worker."""
    before = trial.counters()
    sent = trial.enqueue(Load(count=_count(trial, case, scale), bulk=case.bulk, limit=CUT_OFF * scale.seconds))
    after = trial.counters()
    return {"sent_per_s": sent.sent / sent.seconds} | _costs(before, after, jobs=sent.sent)


def latency(trial: Trial, case: "Case", scale: Scale) -> Figures:
    """Send jobs at a pace to a worker that is ready, and take the time from before each send to the start."""
    trial.start_worker(case.concurrency)
    trial.wait_until_ready(case.concurrency)
    time.sleep(scale.idle_s)
    load = Load(count=scale.samples, seconds=case.seconds, pace=case.pace, delay=case.delay)
    return _waits(trial, load, trial.enqueue(load).moments)


def urgent(trial: Trial, case: "Case", scale: Scale) -> Figures:
    """Send urgent jobs at a pace while a backlog of low priority runs, and take the time to their start."""
    lasts_s = case.pace * scale.samples + 3.0  # the producer needs time to start
    rate = min(trial.installed.side.rate, case.concurrency / case.seconds)
    backlog = Load(count=min(math.ceil(rate * lasts_s), scale.most), seconds=case.seconds, bulk=True, limit=scale.lay_s)
    trial.enqueue(backlog)
    trial.start_worker(case.concurrency)
    trial.wait_for_starts(1, START_S)
    load = Load(first=backlog.count, count=scale.samples, pace=case.pace, urgent=True)
    moments = trial.enqueue(load).moments
    if trial.starts() >= backlog.count + load.count and scale.samples >= LEAST_FOR_COST:
        raise Slow("the backlog was done before the last urgent job: the side is faster than its rate in the registry")
    return _waits(trial, load, moments)


def memory(trial: Trial, case: "Case", scale: Scale) -> Figures:
    """Take the server's memory per job while jobs wait, and after they have run."""
    empty = trial.redis.info("memory")["used_memory"]
    sent = trial.enqueue(Load(count=_count(trial, case, scale), bulk=True, limit=scale.lay_s)).sent
    waiting = trial.redis.info("memory")["used_memory"]
    worker = trial.start_worker(case.concurrency)
    trial.wait_for(lambda: trial.starts() >= sent, START_S + 10 * scale.seconds)
    worker.end()
    finished = trial.redis.info("memory")["used_memory"]
    return {"waiting_bytes": (waiting - empty) / sent, "finished_bytes": (finished - empty) / sent}


def recovery(trial: Trial, case: "Case", scale: Scale) -> Figures:
    """Kill one of two busy workers and take the time until the other one has started all the jobs it had."""
    workers = [trial.start_worker(case.concurrency) for _ in range(2)]
    trial.wait_until_ready(case.concurrency)
    trial.enqueue(Load(count=2 * case.concurrency, seconds=case.seconds, bulk=True))
    trial.wait_for(lambda: any(worker.starts() for worker in workers), START_S)
    time.sleep(case.seconds / 4)
    victim, survivor = sorted(workers, key=lambda worker: -len(worker.starts()))
    killed_ns = time.monotonic_ns()
    victim.kill()
    held = {n for n, _ in victim.starts()} - victim.ends()
    if not held:
        raise Slow("no job was running when the worker was killed")

    def restarted() -> dict[int, int]:
        return {n: at for n, at in survivor.starts() if n in held and at > killed_ns}

    try:
        trial.wait_for(lambda: len(restarted()) == len(held), scale.recovery_s)
    except Slow:
        return {"recovered_percent": 100 * len(restarted()) / len(held)}
    return {"recovered_percent": 100.0, "recovery_s": (max(restarted().values()) - killed_ns) / 1e9}


def drain(trial: Trial, case: "Case", scale: Scale) -> Figures:
    """Stop a busy worker by SIGTERM, run the rest on another one, and count what ran twice or not at all."""
    worker = trial.start_worker(case.concurrency)
    trial.wait_until_ready(case.concurrency)
    load = Load(count=5 * case.concurrency, seconds=case.seconds, bulk=True)
    trial.enqueue(load)
    trial.wait_for(lambda: len(worker.starts()) >= case.concurrency, START_S)
    time.sleep(case.seconds / 4)
    seconds = worker.end()
    other = trial.start_worker(case.concurrency)

    def unfinished() -> int:
        return load.count - len(worker.ends() | other.ends())

    with contextlib.suppress(Slow):  # the figure `unfinished` shows it
        trial.wait_for(lambda: not unfinished(), scale.recovery_s)
    starts = [n for it in (worker, other) for n, _ in it.starts()]
    return {"drain_s": seconds, "run_twice": float(len(starts) - len(set(starts))), "unfinished": float(unfinished())}


def start(trial: Trial, case: "Case", scale: Scale) -> Figures:
    """Take the time of an import and of a worker's start, and what an idle worker costs."""
    bare, imported = (_seconds_of(command, trial, scale.imports) for command in trial.installed.importing())
    trial.enqueue(Load(count=1))
    worker = trial.start_worker(case.concurrency)
    trial.wait_for_starts(1, START_S)
    start_ms = (worker.starts()[0][1] - worker.began_ns) / 1e6
    time.sleep(scale.idle_s)
    began, before = time.monotonic(), trial.counters()
    time.sleep(scale.idle_s)
    idle = trial.counters().since(before)
    return {
        "import_ms": 1_000 * (imported - bare),
        "start_ms": start_ms,
        "resident_mb": worker.resident_bytes() / 1e6,
        "idle_commands_per_s": idle.commands / (time.monotonic() - began),
    }


def _count(trial: Trial, case: "Case", scale: Scale) -> int:
    rate = trial.installed.side.rate * case.processes
    if case.seconds:
        rate = min(rate, round(case.concurrency * case.processes / case.seconds))
    most = min(scale.most, MOST_BYTES // case.payload_bytes) if case.payload_bytes else scale.most
    return max(min(round(rate * scale.seconds), most), 1)


def _costs(before: Counters, after: Counters, jobs: int | None = None) -> Figures:
    spent = after.since(before)
    jobs = spent.starts if jobs is None else jobs
    if jobs < LEAST_FOR_COST:
        return {}
    costs = {
        "commands_per_job": spent.commands / jobs,
        "bytes_per_job": spent.network_bytes / jobs,
        "redis_us_per_job": 1e6 * spent.redis_s / jobs,
    }
    return costs | ({"worker_us_per_job": 1e6 * spent.worker_s / jobs} if spent.worker_s else {})


def _waits(trial: Trial, load: Load, moments: Mapping[int, int]) -> Figures:
    """Return percentiles of the milliseconds between the moment when each job was due and its start."""
    wanted = set(range(load.first, load.first + load.count))

    def starts() -> dict[int, int]:
        return {n: at for worker in trial.workers for n, at in worker.starts() if n in wanted}

    time.sleep(SETTLE_S)
    trial.wait_for(lambda: len(starts()) == load.count, START_S + load.delay)
    waits = [(at - moments[n]) / 1e6 - 1_000 * load.delay for n, at in starts().items()]
    return {"p50_ms": percentile(waits, 50), "p99_ms": percentile(waits, 99)}


def _seconds_of(command: Sequence[str], trial: Trial, times: int) -> float:
    """Return the least time of a command: whatever else the machine does only adds to it."""

    def once() -> float:
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True, timeout=START_S, env=trial.environment())
        return time.monotonic() - began

    return min(once() for _ in range(times))
