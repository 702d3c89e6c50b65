"""Lower bound for every controller on the steady load: least waste for a mean wait, without knowledge of the future.

A Markov decision process, solved by value iteration: Poisson arrivals, exponential service times, pods that start in
STEPS exponential steps (the simulator's take 8-15 s evenly), a decision at each event instead of every 5 s, idle pods
gone at once, and the rates known exactly. So it is kinder to the controller than the simulator is.
"""

import random
from dataclasses import dataclass
from itertools import product

import numpy as np

STEPS = 4
MOST_STARTING = 4
MOST_JOBS = 22
MOST_PODS = 13
STATES = [state for state in product(range(MOST_STARTING + 1), repeat=STEPS) if sum(state) <= MOST_STARTING]
"""Numbers of starting pods at each step of their start."""
INDEX = {state: at for at, state in enumerate(STATES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Parameters of the queue, in seconds and jobs per second."""

    arrivals: float = 0.2
    service: float = 20.0
    startup: float = 11.5


def least_waste(weight: float, queue: Queue, *, hours: float) -> tuple[float, float]:
    """Return mean wait (s) and waste (pod-seconds in two hours) of the best policy.

    A waiting job costs `weight` pods.
    """
    return _play(_solve(weight, queue), queue, seconds=hours * 3600)


def _solve(weight: float, queue: Queue) -> np.ndarray:
    """Return the cost of each state (jobs, ready pods, starting pods) relative to the empty one."""
    jobs, ready = np.arange(MOST_JOBS + 1)[:, None, None], np.arange(MOST_PODS + 1)[None, :, None]
    busy = np.minimum(jobs, ready)
    counts = np.array(STATES)
    cost = (ready - busy) + counts.sum(axis=1)[None, None, :] + weight * np.maximum(jobs - ready, 0)
    end, step = 1 / queue.service, STEPS / queue.startup
    total = queue.arrivals + end * MOST_PODS + step * MOST_STARTING
    moved = [np.array([_advanced(state, at) for state in STATES]) for at in range(STEPS)]
    values = np.zeros(cost.shape)
    for _ in range(3000):
        best = _best(values)
        more = np.concatenate([best[1:], best[-1:]], 0)
        fewer = np.concatenate([best[:1], best[:-1]], 0)
        one_ready = np.concatenate([best[:, 1:], best[:, -1:]], 1)
        new = cost + queue.arrivals * more + end * busy * fewer
        for at in range(STEPS):
            into = one_ready if at == STEPS - 1 else best
            new = new + step * counts[None, None, :, at] * into[:, :, moved[at]]
        new = (new + (total - queue.arrivals - end * busy - step * counts.sum(axis=1)) * best) / total
        change, values = new - values, new - new[0, 0, 0]
        if np.ptp(change) < 1e-5:
            break
    return values


def _advanced(state: tuple[int, ...], at: int) -> int:
    return INDEX[_advance(state, at) if state[at] else state]


def _advance(state: tuple[int, ...], at: int) -> tuple[int, ...]:
    """Return the state after one pod has moved to the next step. After the last step it is no longer a starting pod."""
    moved = list(state)
    moved[at] -= 1
    if at + 1 < STEPS:
        moved[at + 1] += 1
    return tuple(moved)


def _best(values: np.ndarray) -> np.ndarray:
    """Return the least cost after a decision to start some pods, or to remove an idle one."""
    best = values
    for more in range(1, MOST_STARTING + 1):
        started = np.array([INDEX.get((state[0] + more, *state[1:]), i) for i, state in enumerate(STATES)])
        best = np.minimum(best, values[:, :, started])
    best = best.copy()
    for ready in range(1, MOST_PODS + 1):
        best[:ready, ready] = np.minimum(best[:ready, ready], best[:ready, ready - 1])
    return best


def _play(values: np.ndarray, queue: Queue, *, seconds: float) -> tuple[float, float]:
    """Simulate the best policy."""
    rng = random.Random("bound")
    jobs = ready = 0
    starting: tuple[int, ...] = (0,) * STEPS
    now = waste = waited = 0.0
    while now < seconds:
        ready, starting = _decide(values, jobs, ready, starting)
        busy = min(jobs, ready)
        rates = [queue.arrivals, busy / queue.service, *(n * STEPS / queue.startup for n in starting)]
        passed = rng.expovariate(sum(rates))
        now += passed
        waste += (ready - busy + sum(starting)) * passed
        waited += max(0, jobs - ready) * passed
        event = rng.choices(range(len(rates)), rates)[0]
        if event < 2:
            jobs = min(MOST_JOBS, jobs + 1) if event == 0 else jobs - 1
        else:
            starting = _advance(starting, event - 2)
            ready = min(MOST_PODS, ready + (event == STEPS + 1))
    return waited / now / queue.arrivals, waste / now * 7200


def _decide(values: np.ndarray, jobs: int, ready: int, starting: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    choices = (
        (values[jobs, left, INDEX[(starting[0] + more, *starting[1:])]], -left, more)
        for left in range(min(jobs, ready), ready + 1)
        for more in range(MOST_STARTING - sum(starting) + 1)
    )
    _, left, more = min(choices)
    return -left, (starting[0] + more, *starting[1:])
