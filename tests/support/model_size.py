"""Size of the model tests. MODEL_RUNS in the environment is the number of runs of each; by default it is small.

With MODEL_RUNS a failure is reported as it was found: to look for a smaller one takes minutes.
"""

import os

from hypothesis import HealthCheck, Phase, settings


def model_settings(runs: int, *, steps: int) -> settings:
    """Return the settings of a state machine.

    Args:
        runs: number of runs unless the environment says another.
        steps: number of rules in each at most.
    """
    given = os.environ.get("MODEL_RUNS")
    return settings(
        max_examples=int(given or runs),
        phases=[phase for phase in Phase if phase is not Phase.shrink or not given],
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
