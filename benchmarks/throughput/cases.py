"""Cases as data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.throughput import durable, measures
from benchmarks.throughput.measures import Figures, Scale
from benchmarks.throughput.trial import Trial


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        name: short name, for `--only` and in JSON.
        title: what a reader sees.
        measure: what is done.
        concurrency: jobs that each worker process runs at a time.
        processes: worker processes.
        seconds: time that a job sleeps.
        payload_bytes: size of a job's payload.
        waiting: number of jobs in the backlog, of suspended jobs or of children, where the case fixes it.
        bulk: enqueue many jobs a call.
        pace: mean seconds between two sends.
        delay: seconds that jobs are delayed.
        network_ms: delay of the network.
        needs: features without which a side has no figure.
        main: part of `make bench`.
    """

    name: str
    title: str
    measure: Callable[[Trial, "Case", Scale], Figures]
    concurrency: int = 10
    processes: int = 1
    seconds: float = 0.0
    payload_bytes: int = 0
    waiting: int = 0
    bulk: bool = True
    pace: float = 0.0
    delay: float = 0.0
    network_ms: float = 0.0
    needs: tuple[str, ...] = ()
    main: bool = False


def _noop(concurrency: int, processes: int) -> Case:
    name = f"noop-{concurrency}" + (f"x{processes}" if processes > 1 else "")
    where = "1 process" if processes == 1 else f"{processes} processes"
    title = f"no-op jobs, {concurrency} at a time, {where}"
    return Case(name, title, measures.throughput, concurrency, processes, main=processes == 1)


CASES: Final = (
    *(_noop(concurrency, processes) for processes in (1, 2, 4) for concurrency in (1, 10, 100)),
    Case("naps-100", "50 ms jobs, 100 at a time", measures.throughput, 100, seconds=0.05, main=True),
    Case("enqueue-one", "enqueue one by one", measures.enqueueing, bulk=False, main=True),
    Case("enqueue-bulk", "enqueue in bulk", measures.enqueueing, main=True),
    Case("idle", "enqueue to start, idle worker", measures.latency, pace=0.015, main=True),
    Case("half-load", "enqueue to start, half of 10 slots busy", measures.latency, seconds=0.05, pace=0.01),
    Case(
        "urgent", "urgent job in a backlog of 2 ms jobs", measures.urgent, seconds=0.002, pace=0.02, needs=("priority",)
    ),
    Case("delayed", "start of a delayed job after it is due", measures.latency, pace=0.01, delay=3.0, needs=("delay",)),
    *(
        Case(
            f"waiting-{name}", f"no-op jobs with {name} waiting, 100 at a time", measures.throughput, 100, waiting=count
        )
        for name, count in (("1k", 1_000), ("100k", 100_000), ("1M", 1_000_000))
    ),
    Case("payload-1k", "no-op jobs of 1 KB, 100 at a time", measures.throughput, 100, payload_bytes=1_000),
    Case("payload-100k", "no-op jobs of 100 KB, 100 at a time", measures.throughput, 100, payload_bytes=100_000),
    Case("memory", "memory of the server", measures.memory),
    Case("recovery", "jobs of a killed worker run again", measures.recovery, seconds=3.0),
    Case("drain", "stop of a worker with 10 jobs of 0.5 s", measures.drain, seconds=0.5),
    Case("start", "import, start and idling", measures.start, main=True),
    Case("network-noop-10", "no-op jobs, 10 at a time, network of 3 ms", measures.throughput, 10, network_ms=3.0),
    Case("network-noop-100", "no-op jobs, 100 at a time, network of 3 ms", measures.throughput, 100, network_ms=3.0),
    Case(
        "network-naps-100",
        "50 ms jobs, 100 at a time, network of 3 ms",
        measures.throughput,
        100,
        seconds=0.05,
        network_ms=3.0,
    ),
    *(
        Case(
            f"steps-{concurrency}",
            f"durable steps, {concurrency} at a time",
            durable.steps,
            concurrency,
            needs=("durable",),
            main=concurrency == 1,
        )
        for concurrency in (1, 10)
    ),
    Case(
        "wake",
        "signal to the start of the handler, suspended jobs",
        durable.waking,
        pace=0.015,
        needs=("durable", "suspension"),
        main=True,
    ),
    Case(
        "suspended-1k",
        "idle worker without and with 1,000 suspended jobs",
        durable.suspended,
        100,
        waiting=1_000,
        needs=("durable", "suspension"),
        main=True,
    ),
    Case(
        "children-1k",
        "a job that gathers 1,000 children",
        durable.children,
        waiting=1_000,
        needs=("durable", "suspension"),
        main=True,
    ),
    Case(
        "network-idle", "enqueue to start, idle worker, network of 3 ms", measures.latency, pace=0.015, network_ms=3.0
    ),
)
