"""Settings of the agents of a resource file, for a run on this machine."""

import os
from pathlib import Path

from agentqueue.errors import InvalidSpec
from agentqueue.spec import Loaded
from agentqueue.spec.resolve import ResolvedQueue
from agentqueue.spec.worker_environment import worker_environment
from agentqueue_operator.autoscaling.policy import policy_of
from agentqueue_operator.local.ports import AgentRun
from agentqueue_operator.local.processes import import_path, write_code
from agentqueue_operator.local.variables import Documents, resolve_variables
from agentqueue_operator.queues.housekeeper import retention_of


def agent_runs(queue: ResolvedQueue, loaded: Loaded, *, code: Path, data: Path) -> list[AgentRun]:
    """Return the agents of a queue with the environment of their workers.

    Args:
        queue: the resource with all defaults.
        loaded: the file, with the Secrets and ConfigMaps in it.
        code: folder of the file, from which handlers are imported.
        data: data folder, which gets the files of `codeFrom`.

    Raises:
        InvalidSpec: a variable or the code refers to an object that is not in the file.
    """
    kinds = {str(other["metadata"]["name"]): str(other["kind"]) for other in loaded.others}
    documents = Documents(
        secrets={name: loaded.secret(name) or {} for name, kind in kinds.items() if kind == "Secret"},
        config_maps={name: loaded.config_map(name) or {} for name, kind in kinds.items() if kind == "ConfigMap"},
        shell=os.environ,
    )
    runs: list[AgentRun] = []
    for agent in queue.agents:
        folders = [code]
        if agent.code_from is not None:
            name = agent.code_from.config_map.name
            files = loaded.config_map(name)
            if files is None:
                where = f"which is not in {loaded.source}"
                raise InvalidSpec(f"agent {agent.name}: codeFrom names the ConfigMap {name}, {where}")
            folders.insert(0, write_code(data / "code" / name, files))
        variables = resolve_variables(agent.name, agent.env, agent.env_from, documents)
        path = import_path(folders, variables.get("PYTHONPATH") or os.environ.get("PYTHONPATH"))
        runs.append(
            AgentRun(
                name=agent.name,
                queue=agent.queue_name,
                policy=policy_of(agent, suspended=queue.suspend),
                environment={**variables, **worker_environment(agent), "PYTHONPATH": path},
                grace_s=agent.termination_grace_period_seconds,
                retention=retention_of(agent),
                schedules=agent.schedules,
            )
        )
    return runs
