"""Controllers that are compared, by name."""

from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from benchmarks.scaling.agentqueue import AgentQueue
from benchmarks.scaling.keda import Keda, KedaConfig
from benchmarks.scaling.loads import Load
from benchmarks.scaling.world import Controller

from agentqueue_operator.autoscaling.model import ScalingPolicy

Build = Callable[[Load], Controller]


def keda(
    *,
    metric: Literal["waiting", "waiting+active"] = "waiting+active",
    per_slot: float = 1.0,
    polling: float = 5.0,
    window: float = 60.0,
    limit_up: bool = False,
) -> Build:
    """Return KEDA with a target of `per_slot` jobs per slot, and one window for cooldown and stabilisation."""

    def build(load: Load) -> Controller:
        return Keda(
            KedaConfig(
                list_length=per_slot * load.setting.slots,
                metric=metric,
                polling=polling,
                cooldown=window,
                stabilisation=window,
                limit_up=limit_up,
            )
        )

    return build


def agentqueue(window: float | None = None) -> Build:
    """Return AgentQueue with its defaults, except for the scale-down window."""

    def build(load: Load) -> Controller:
        policy = ScalingPolicy(
            max_replicas=load.setting.max_pods,
            concurrency=load.setting.slots,
            scale_down_window=None if window is None else timedelta(seconds=window),
        )
        return AgentQueue(policy, wrong_by=load.wrong_by)

    return build


KEDA_DEFAULT = "KEDA, its defaults"
KEDA_BEST = "KEDA, best tuned"
OURS = "AgentQueue, its defaults"

CONTROLLERS: dict[str, Build] = {
    KEDA_DEFAULT: keda(metric="waiting", per_slot=5.0, polling=30.0, window=300.0, limit_up=True),
    "KEDA, waiting + active": keda(polling=30.0, window=300.0, limit_up=True),
    KEDA_BEST: keda(),
    OURS: agentqueue(),
}

KEDA_WINDOWS: dict[str, Build] = {f"KEDA, window {s} s": keda(window=float(s)) for s in (0, 15, 30, 120, 300)}
OUR_WINDOWS: dict[str, Build] = {f"AgentQueue, window {s} s": agentqueue(float(s)) for s in (15, 30, 60, 120, 300)}
"""Variants of the two, which show the trade between waiting and waste."""
EVERY = CONTROLLERS | KEDA_WINDOWS | OUR_WINDOWS
