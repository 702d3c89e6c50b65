"""The durable calls of a job's context, each in the room that carries it out."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any

from agentqueue.agent.durable import StepCall
from agentqueue_worker.app.durable_run import DurableRun
from agentqueue_worker.app.steps import Steps


class DurableCalls:
    """Carries out the durable calls of one run. See the port, `agentqueue.agent.durable.Durable`."""

    def __init__(self, run: DurableRun, step_ended: Callable[[str, str, str, float], None]) -> None:
        self.run = run
        self._steps = Steps(run, functools.partial(step_ended, run.job.handler.name))

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """Run a step, or return its value from the journal."""
        return self._steps.step(call)
