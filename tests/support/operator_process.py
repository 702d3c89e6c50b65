"""The operator as a process of its own, with only the declared rights, as it runs in a pod."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from agentqueue.clock import monotonic
from agentqueue_operator.resources.rbac import LEADER_ELECTION_RULES, PolicyRule, namespace_rules
from tests.support.cluster.kube import Kube, Object
from tests.support.servers import free_port


@dataclass
class OperatorProcess:
    """A running operator process."""

    process: asyncio.subprocess.Process
    port: int
    log: Path
    name: str = "operator"

    @property
    def pid(self) -> int:
        """Return the process ID."""
        return self.process.pid

    def lines(self) -> list[Mapping[str, Any]]:
        """Return its log lines."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def events(self) -> list[str]:
        """Return the names of its log events."""
        return [str(line["event"]) for line in self.lines()]

    async def ask(self, path: str) -> tuple[int, str]:
        """Return status code and text of a probe; 0: it does not listen."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            try:
                answer = await http.get(f"http://127.0.0.1:{self.port}{path}")
            except httpx.TransportError:
                return 0, ""
        return answer.status_code, answer.text

    async def metrics(self) -> dict[str, float]:
        """Return its metrics by name and labels, as in the text format."""
        _, text = await self.ask("/metrics")
        found = (re.fullmatch(r"(\S+(?:\{.*\})?) (\S+)", line) for line in text.splitlines() if line[:1] != "#")
        return {match[1]: float(match[2]) for match in found if match}

    async def total(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over all series with these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = await self.metrics()
        return sum(
            value for key, value in found.items() if key.partition("{")[0] == name and all(one in key for one in wanted)
        )

    async def until(self, holds: str | None = None, *, path: str = "/readyz", timeout: float = 90) -> None:
        """Wait until a probe answers 200, or a metric is 1 (`holds` names it)."""
        async with asyncio.timeout(timeout):
            while not await self._holds(holds, path):
                assert self.process.returncode is None, f"it has ended:\n{self.log.read_text()}"
                await asyncio.sleep(0.05)

    async def until_logged(self, event: str, *, times: int = 1, timeout: float = 30) -> None:
        """Wait until it has logged an event this number of times."""
        async with asyncio.timeout(timeout):
            while self.events().count(event) < times:  # noqa: ASYNC110  # the state is another process's
                await asyncio.sleep(0.05)

    async def leads(self) -> bool:
        """Return whether its metrics report that it leads."""
        return (await self.metrics()).get("agentqueue_operator_leader") == 1.0

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal, wait for the end, and return the exit code and the duration in seconds."""
        began = monotonic()
        self.send(number)
        code = await asyncio.wait_for(self.process.wait(), 30)
        return code, monotonic() - began

    async def _holds(self, metric: str | None, path: str) -> bool:
        if metric is not None:
            return (await self.metrics()).get(metric) == 1.0
        return (await self.ask(path))[0] == 200


@dataclass
class Operators:
    """Starts operators, and ends those that still run."""

    folder: Path
    kubeconfig: Path
    namespace: str
    environment: Mapping[str, str] = field(default_factory=dict)
    running: list[OperatorProcess] = field(default_factory=list)

    async def start(self, **environment: str) -> OperatorProcess:
        """Start another operator and return immediately. Settings are given by their names in lower case."""
        name = f"operator-{len(self.running)}"
        self.folder.mkdir(exist_ok=True)
        port, log = free_port(), self.folder / f"{name}.log"
        given = {"port": str(port), "identity": name, "namespace": self.namespace, "log_format": "json"}
        given |= {"namespaces": self.namespace} | dict(self.environment) | environment
        variables = {f"AGENTQUEUE_OPERATOR_{key.upper()}": value for key, value in given.items()}
        with log.open("w") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "agentqueue_operator",
                stdout=out,
                stderr=out,
                env={**os.environ, **variables, "KUBECONFIG": str(self.kubeconfig)},
            )
        self.running.append(OperatorProcess(process, port, log, name))
        return self.running[-1]

    async def started(self, **environment: str) -> OperatorProcess:
        """Start another operator and wait until its caches are filled."""
        operator = await self.start(**environment)
        await operator.until()
        return operator

    async def close(self) -> None:
        """End all processes."""
        for operator in self.running:
            if operator.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    operator.send(signal.SIGCONT)
                    operator.process.kill()
                await operator.process.wait()


def rules(given: Sequence[PolicyRule]) -> list[Object]:
    """Return the rules of a Role."""
    return [{"apiGroups": [it.group], "resources": [it.resource], "verbs": list(it.verbs)} for it in given]


async def grant(kube: Kube, *, read_secrets: bool = True) -> None:
    """Create a ServiceAccount `operator` with the declared rights in the client's namespace."""
    all_rules = rules([*namespace_rules(read_secrets=read_secrets), *LEADER_ELECTION_RULES])
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": kube.namespace}
    role_ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"}
    await kube.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "operator"},
            "rules": all_rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "operator"},
            "roleRef": role_ref,
            "subjects": [subject],
        },
    )


async def write_kubeconfig(kube: Kube, path: Path, server: str | None = None) -> Path:
    """Write a kubeconfig for the ServiceAccount `operator`. `server` is another address, such as a proxy's."""
    place = f"/api/v1/namespaces/{kube.namespace}/serviceaccounts/operator/token"
    answer = await kube.request("POST", place, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"})
    access = kube.cluster.access
    cluster: dict[str, Any] = {"server": server or access.server}
    if server is None:
        cluster["certificate-authority"] = str(access.authority)
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "operator"}}],
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "operator", "user": {"token": answer["status"]["token"]}}],
    }
    await asyncio.to_thread(path.write_text, json.dumps(content))
    return path


def plain_agent(name: str = "greetings", **given: Any) -> Object:
    """Return an agent without pods: in mode Auto, one would run until a worker has registered."""
    scaling = {"mode": "Fixed", "replicas": 0}
    return {"name": name, "image": "example/agents:1", "handler": "agents:agent", "scaling": scaling} | given


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process in megabytes."""
    return _status(pid)["VmRSS"] / 1024


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: int(value.split()[0]) for name, value in _numbers(lines)}


def _numbers(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition(":")
        if value.split() and value.split()[0].isdecimal():
            yield name, value


@contextlib.asynccontextmanager
async def operators_of(kube: Kube, folder: Path, kubeconfig: Path, **environment: str) -> AsyncIterator[Operators]:
    """Start operators for the client's namespace, and end them afterwards."""
    operators = Operators(folder, kubeconfig, kube.namespace, environment)
    try:
        yield operators
    finally:
        await operators.close()
