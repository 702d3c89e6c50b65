"""Loads: arrival times and service times, drawn from the name of a load and a seed before the run."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.scaling.world import Job, Setting

Rate = Callable[[float], float]
Service = Callable[[random.Random], float]
"""Draws a job's service time in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Jobs of a queue, and the settings of its cluster."""

    name: str
    about: str
    arrivals: Callable[[random.Random, float], Iterator[float]]
    service: Service
    setting: Setting = field(default_factory=Setting)
    wrong_by: float = 1.0
    """Factor by which the controller's estimate of the service time is wrong."""

    before: "Load | None" = None
    """Other jobs of the same queue, in the same setting."""

    def jobs(self, seed: int) -> list[Job]:
        rng = random.Random(f"{self.name}/{seed}")
        jobs = [Job(at, self.service(rng)) for at in self.arrivals(rng, self.setting.horizon)]
        others = self.before.jobs(seed) if self.before is not None else []
        return sorted(others + jobs, key=lambda job: job.arrived)


def poisson(rate: Rate, greatest: float) -> Callable[[random.Random, float], Iterator[float]]:
    """Return a Poisson process with a varying rate, by thinning a process with the `greatest` rate."""

    def draw(rng: random.Random, horizon: float) -> Iterator[float]:
        at = rng.expovariate(greatest)
        while at < horizon:
            if rng.random() * greatest < rate(at):
                yield at
            at += rng.expovariate(greatest)

    return draw


def steady(rate: float) -> Callable[[random.Random, float], Iterator[float]]:
    return poisson(lambda _: rate, rate)


def bursts(jobs: int, every: float) -> Callable[[random.Random, float], Iterator[float]]:
    """Return bursts of this number of jobs, a minute after each multiple of `every` seconds."""

    def draw(_: random.Random, horizon: float) -> Iterator[float]:
        at = 60.0
        while at < horizon:
            yield from [at] * jobs
            at += every

    return draw


def lognormal(mean: float, variation: float) -> Service:
    spread = math.log(1 + variation * variation)
    return lambda rng: rng.lognormvariate(math.log(mean) - spread / 2, math.sqrt(spread))


def pareto(least: float, alpha: float, most: float) -> Service:
    return lambda rng: min(most, least * rng.paretovariate(alpha))


def _after_burst(at: float) -> float:
    return 0.5 if 90 <= at % 1200 < 390 else 0.0


def _sine(at: float) -> float:
    return 0.31 + 0.29 * math.sin(2 * math.pi * at / 3600)


def _on_off(at: float) -> float:
    return 0.5 if int(at // 600) % 2 == 0 else 0.0


def _ramp(at: float) -> float:
    return 0.05 + 0.95 * min(1.0, max(0.0, (at - 1800) / 1800))


SLOW = Setting(start=(60.0, 90.0))

_JOB = lognormal(20, 1)
_SLOW = Setting(start=(60.0, 90.0))

STUDY = (
    Load(name="steady", about="0.2 jobs/s of 20 s", arrivals=steady(0.2), service=_JOB),
    Load(name="diurnal", about="0.02-0.6 jobs/s of 20 s, a wave an hour", arrivals=poisson(_sine, 0.6), service=_JOB),
    Load(
        name="on-off",
        about="0.5 jobs/s of 25 s, 10 minutes on, 10 off",
        arrivals=poisson(_on_off, 0.5),
        service=lognormal(25, 1),
    ),
    Load(
        name="heavy-tail",
        about="0.1 jobs/s, Pareto 5 s to 30 min",
        arrivals=steady(0.1),
        service=pareto(5, 1.2, 1800),
    ),
    Load(name="short-jobs", about="5 jobs/s of 1 s", arrivals=steady(5), service=lognormal(1, 0.5)),
    Load(name="bursts", about="100 jobs of 20 s at once, every 20 minutes", arrivals=bursts(100, 1200), service=_JOB),
    Load(
        name="long-jobs",
        about="40 jobs of 5 minutes at once, every 40 minutes",
        arrivals=bursts(40, 2400),
        service=lognormal(300, 0.8),
    ),
    Load(name="trickle", about="a job of 60 s every 5 minutes", arrivals=steady(1 / 300), service=lognormal(60, 1)),
)
"""Eight loads of the study for the first formula."""

CONTINUOUS = STUDY[:5]
"""Loads on which the mean wait of that formula was longer than KEDA's."""

MORE = (
    Load(name="ramp", about="0.05 to 1 job/s of 20 s within half an hour", arrivals=poisson(_ramp, 1.0), service=_JOB),
    Load(name="slow-start", about="steady, pods start in 60-90 s", arrivals=steady(0.2), service=_JOB, setting=_SLOW),
    Load(
        name="slow-bursts",
        about="bursts, pods start in 60-90 s",
        arrivals=bursts(100, 1200),
        service=_JOB,
        setting=_SLOW,
    ),
    Load(
        name="four-slots",
        about="1 job/s of 20 s, four slots a pod",
        arrivals=steady(1.0),
        service=_JOB,
        setting=Setting(slots=4),
    ),
    Load(
        name="long-grace",
        about="long jobs, 10 minutes of grace",
        arrivals=bursts(40, 2400),
        service=lognormal(300, 0.8),
        setting=Setting(grace=600.0),
    ),
    Load(
        name="longer-jobs",
        about="40 jobs of 5 s at once, from half a minute later on 0.5 jobs/s of 40 s for 5 minutes",
        arrivals=poisson(_after_burst, 0.5),
        service=lognormal(40, 0.5),
        before=Load(name="short-burst", about="40 jobs of 5 s", arrivals=bursts(40, 1200), service=lognormal(5, 0.5)),
    ),
    Load(
        name="wrong-high",
        about="steady, jobs taken for 3 times as long",
        arrivals=steady(0.2),
        service=_JOB,
        wrong_by=3.0,
    ),
    Load(
        name="wrong-low",
        about="steady, jobs taken for a third as long",
        arrivals=steady(0.2),
        service=_JOB,
        wrong_by=1 / 3,
    ),
    Load(
        name="wrong-bursts",
        about="bursts, jobs taken for a third as long",
        arrivals=bursts(100, 1200),
        service=_JOB,
        wrong_by=1 / 3,
    ),
)
"""Loads that the study did not contain."""

LOADS = STUDY + MORE
