"""`agentqueue --in NAMESPACE/NAME` on a real cluster: kubectl, forwarded ports, rights."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentqueue_operator.resources.render import redis_name
from tests.support.certificates import issue
from tests.support.cluster.kube import Cluster, Kube
from tests.support.cluster.own import OwnCluster
from tests.support.operator import Operator, agent_queue, code, install_crd, is_ready, until

AQ = "agentqueue"


@dataclass
class Cli:
    """The command in a process of its own, as a person at a terminal has it."""

    kubeconfig: Path
    kubectl: Path | None
    folder: Path

    async def __call__(self, *words: str, code: int = 0) -> str:
        """What it printed, errors too."""
        hidden = ("AGENTQUEUE_REDIS_URL", "REDIS_URL")
        env = {name: value for name, value in os.environ.items() if name not in hidden}
        path = [str(self.kubectl), env["PATH"]] if self.kubectl else [env["PATH"]]
        env |= {"KUBECONFIG": str(self.kubeconfig), "PATH": os.pathsep.join(path)}
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", "from agentqueue.cli.main import main; main()", *words],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture
def cli(cluster: Cluster, tmp_path: Path) -> Cli:
    kubectl = cluster.program.folder if isinstance(cluster, OwnCluster) else None
    return Cli(cluster.kubeconfig, kubectl, tmp_path)


def forwards(namespace: str) -> list[str]:
    """Command lines of port-forwards into the namespace that run on this machine."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "port-forward" in words and namespace in words:
            found.append(" ".join(words))
    return found


async def test_jobs_are_sent_to_a_queue_in_the_cluster_and_done_by_its_pods(
    operator: Operator, kube: Kube, cli: Cli
) -> None:
    place = f"{kube.namespace}/demo"
    await kube.apply(code(), agent_queue())
    await kube.until(AQ, "demo", is_ready, timeout=60)
    assert "Hello world" in await cli("--in", place, "submit", "greetings", "greet", '"world"', "--wait")
    (stats,) = json.loads(await cli("stats", "--json", "--in", place))["stats"]
    assert (stats["name"], stats["completed"], len(stats["workers"])) == ("greetings", 1, 1)
    assert "greetings" in await cli("explain", "greetings", "--in", place)
    await cli("pause", "greetings", "--in", place)
    assert "did you mean 'greetings'?" in await cli("resume", "greting", "--in", place, code=3)
    assert forwards(kube.namespace) == []
    assert "did you mean 'demo'?" in await cli("stats", "--in", f"{kube.namespace}/dmo", code=3)


async def test_the_namespace_may_be_the_kubeconfigs(operator: Operator, kube: Kube, cli: Cli, tmp_path: Path) -> None:
    await kube.apply(code(), agent_queue())
    await kube.until(AQ, "demo", is_ready, timeout=60)
    cli.kubeconfig = await changed(kube, tmp_path, namespace=kube.namespace)
    (stats,) = json.loads(await cli("stats", "--json", "--in", "demo"))["stats"]
    assert stats["name"] == "greetings"
    assert "no-such-context" in await cli("stats", "--in", "demo", "--context", "no-such-context", code=1)


async def test_a_managed_redis_with_tls(operator: Operator, kube: Kube, cli: Cli, tmp_path: Path) -> None:
    service = f"{redis_name('demo')}.{kube.namespace}.svc"
    made = issue(tmp_path / "certificates", service, "localhost", "127.0.0.1")
    cert, key = map(made.text, made.of("server"))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "demo-tls"},
        "stringData": {"tls.crt": cert, "tls.key": key, "ca.crt": made.text(made.ca)},
    }
    await kube.apply(secret, code(), agent_queue(redis={"managed": {"tls": {"secretName": "demo-tls"}}}))
    await kube.until(AQ, "demo", is_ready, timeout=90)
    answer = await cli("--in", f"{kube.namespace}/demo", "submit", "greetings", "greet", '"TLS"', "--wait")
    assert "Hello TLS" in answer


async def test_an_agentqueue_that_no_operator_has_seen(kube: Kube, cli: Cli) -> None:
    await install_crd(kube)
    await kube.apply(agent_queue())
    said = await cli("stats", "--in", f"{kube.namespace}/demo", code=1)
    assert "the operator has not processed it" in said


async def test_rights_that_are_missing_are_named(operator: Operator, kube: Kube, cli: Cli, tmp_path: Path) -> None:
    place = f"{kube.namespace}/demo"
    await kube.apply(code(), agent_queue())
    await kube.until(AQ, "demo", is_ready, timeout=60)
    cli.kubeconfig = await changed(kube, tmp_path, impersonate="reader")
    assert f"you may not read AgentQueue {place}" in await cli("stats", "--in", place, code=1)
    await allow(kube, "agentqueues", {"apiGroups": ["agentqueue.dev"], "resources": ["agentqueues"], "verbs": ["get"]})

    async def refused() -> bool:
        said = await cli("stats", "--in", place, code=1)
        return f"you may not read Secret {kube.namespace}/{redis_name('demo')}" in said

    await until(refused, timeout=30)
    await allow(kube, "secrets", {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})

    async def no_forward() -> bool:
        said = await cli("stats", "--in", place, code=1)
        return f"can't forward a port to service/{redis_name('demo')}" in said and "forbidden" in said

    await until(no_forward, timeout=30)


async def changed(kube: Kube, folder: Path, *, namespace: str | None = None, impersonate: str | None = None) -> Path:
    """The kubeconfig with another current namespace, or for somebody else."""
    whole = json.loads(await kube.kubectl("config", "view", "--raw", "--flatten", "--output", "json"))
    if namespace:
        whole["contexts"][0]["context"]["namespace"] = namespace
    if impersonate:
        whole["users"][0]["user"]["as"] = impersonate
    path = folder / "kubeconfig"
    path.write_text(json.dumps(whole))
    return path


async def allow(kube: Kube, name: str, rule: dict[str, list[str]]) -> None:
    """Let `reader` do it."""
    group = "rbac.authorization.k8s.io"
    await kube.apply(
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": name}, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "User", "apiGroup": group, "name": "reader"}],
        },
    )
