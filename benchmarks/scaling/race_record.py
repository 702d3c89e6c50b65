"""What happened in a race on a real cluster, and its figures: those of the simulator, from the same definitions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentqueue.clock import monotonic
from tests.support.removals import Removals


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures of one side, in seconds, jobs and pods."""

    jobs: int
    mean_wait: float
    p50_wait: float
    p95_wait: float
    p99_wait: float
    waste: float
    """Idle pod-seconds, those of starting pods included, and the work that killed jobs lost."""
    pod_seconds: float
    killed: int
    """Runs that ended before the job did, since their pod went."""
    peak: int
    unfinished: int


@dataclass
class Life:
    """A pod from its creation to its deletion, in monotonic seconds."""

    born: float
    gone: float | None = None


@dataclass
class Race(Removals):
    """Jobs and pods of one side. One slot a pod. Times are in monotonic seconds of this machine."""

    sent: dict[str, float] = field(default_factory=dict)
    started: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    """Every start of a job, with its pod."""
    ended: dict[str, float] = field(default_factory=dict)
    pods: dict[str, Life] = field(default_factory=dict)

    def note(self, what: str, pod: str, job: str) -> None:
        """Record a line from a handler."""
        super().note(what, pod, job)
        if what == "start":
            self.started.setdefault(job, []).append((monotonic(), pod))
        else:
            self.ended.setdefault(job, monotonic())

    def see(self, kind: str, pod: str) -> None:
        """Record an event of a pod's watch."""
        life = self.pods.setdefault(pod, Life(monotonic()))
        if kind == "DELETED" and life.gone is None:
            life.gone = monotonic()

    @property
    def present(self) -> int:
        """Number of pods that are there."""
        return sum(life.gone is None for life in self.pods.values())

    def figures(self, until: float) -> Figures:
        """Return the figures of the time up to `until`."""
        waits = sorted(self._first_start(job, until) - at for job, at in self.sent.items())
        pod_seconds = sum(min(life.gone or until, until) - life.born for life in self.pods.values())
        runs = [run for job in self.started for run in self._runs(job, until)]
        busy = sum(seconds for seconds, _ in runs)
        lost = sum(seconds for seconds, is_lost in runs if is_lost)
        return Figures(
            jobs=len(self.sent),
            mean_wait=sum(waits) / max(1, len(waits)),
            p50_wait=_percentile(waits, 50),
            p95_wait=_percentile(waits, 95),
            p99_wait=_percentile(waits, 99),
            waste=pod_seconds - busy + lost,
            pod_seconds=pod_seconds,
            killed=sum(is_lost for _, is_lost in runs),
            peak=_most_at_once(self.pods, until),
            unfinished=len(self.sent) - len(self.ended),
        )

    def _first_start(self, job: str, until: float) -> float:
        return self.started[job][0][0] if job in self.started else until

    def _runs(self, job: str, until: float) -> list[tuple[float, bool]]:
        """Return the seconds of each run of a job, and whether its work was lost."""
        starts, runs = self.started[job], []
        for number, (at, pod) in enumerate(starts):
            is_last = number == len(starts) - 1
            if is_last and job in self.ended:
                runs.append((self.ended[job] - at, False))
            else:
                gone = self.pods[pod].gone if pod in self.pods else None
                next_start = until if is_last else starts[number + 1][0]
                runs.append((min(gone or next_start, next_start) - at, not is_last or gone is not None))
        return runs


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[max(-(-len(ordered) * percent // 100), 1) - 1] if ordered else 0.0


def _most_at_once(pods: Mapping[str, Life], until: float) -> int:
    changes = [(life.born, 1) for life in pods.values()] + [(life.gone or until, -1) for life in pods.values()]
    present = most = 0
    for _, change in sorted(changes):
        present += change
        most = max(most, present)
    return most
