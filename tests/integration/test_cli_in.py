"""`--in NAMESPACE/NAME` with a kubectl of the test's own; tests/cluster/test_in.py has it on a real cluster."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentqueue import SyncClient
from agentqueue.cli.kubernetes import ClusterRef, at_port, connection_from_cluster
from agentqueue.cli.main import run
from agentqueue.errors import QueueUnavailable, UsageError
from agentqueue.store import Sentinels, ServerOptions, Tls
from tests.support.certificates import issue
from tests.support.kubectl import FakeKubectl
from tests.support.servers import free_port, run_server

QUEUES = "agentqueues.agentqueue.dev"
SERVICE = "travel-redis-1a2b3"
PASSWORD = "p@ss/word"


def secret(**values: str) -> dict[str, Any]:
    return {"data": {key.replace("_", "."): base64.b64encode(it.encode()).decode() for key, it in values.items()}}


def managed(**redis: Any) -> dict[str, Any]:
    """An AgentQueue whose Redis is up."""
    status = {"redis": {"endpoint": f"{SERVICE}.prod.svc:6379", "secretName": SERVICE}}
    return {"spec": {"redis": {"managed": redis}}, "status": status}


def external(**redis: Any) -> dict[str, Any]:
    return {"spec": {"redis": {"external": {"urlSecretRef": {"name": "given"}, **redis}}}}


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKubectl:
    """First on PATH; no other way to a Redis."""
    fake = FakeKubectl(tmp_path / "kubectl")
    monkeypatch.setenv("PATH", f"{fake.install()}{os.pathsep}{os.environ['PATH']}")
    for name in ("AGENTQUEUE_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture
def travel(kubectl: FakeKubectl) -> Iterator[SyncClient]:
    """AgentQueue prod/travel on a real server with a password, and a client straight to it."""
    kubectl.put(QUEUES, "prod", "travel", managed())
    kubectl.put("secret", "prod", SERVICE, secret(url=f"redis://default:p%40ss%2Fword@{SERVICE}.prod.svc:6379/0\n"))
    with run_server("valkey", requirepass=PASSWORD) as server:
        kubectl.serve(server.port)
        yield SyncClient(server.url)


def ended(pid: int) -> bool:
    """Wait up to ten seconds until no process has this ID, and return whether that is so."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


# --- a managed Redis: through a forwarded port


def test_commands_work_on_the_queue_of_the_cluster(
    travel: SyncClient, kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    with travel:
        assert run(["submit", "greeter", "hello", '"you"', "--id", "one", "--in", "prod/travel", "--json"]) == 0
        assert travel.status("one").queue == "greeter"
        capsys.readouterr()
        assert run(["--in", "prod/travel", "stats", "greeter", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["waiting"] == 1
        assert run(["cancel", "one", "--in", "prod/travel"]) == 0
    assert kubectl.calls("port-forward")[0][-2:] == [f"service/{SERVICE}", ":6379"]
    assert all(map(ended, kubectl.pids("port-forward")))


def test_the_namespace_and_the_context_are_kubectls(
    travel: SyncClient, kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    with travel:
        kubectl.put(QUEUES, "current", "local", managed())
        kubectl.put("secret", "current", SERVICE, secret(url=f"redis://default:p%40ss%2Fword@{SERVICE}.prod.svc:6379"))
        assert run(["stats", "--in", "local", "--context", "east"]) == 0
    first, second, forward = (kubectl.calls("get")[0], kubectl.calls("get")[1], kubectl.calls("port-forward")[0])
    assert "--namespace" not in first
    assert all(words[:2] == ["--context", "east"] for words in (first, second, forward))
    assert second[2:4] == forward[2:4] == ["--namespace", "current"]


def test_secrets_are_read_while_the_port_is_being_forwarded(
    travel: SyncClient, kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    with travel:
        kubectl.expect_all_at_once()
        assert run(["stats", "--in", "prod/travel"]) == 0, capsys.readouterr().err


def test_the_client_is_imported_while_kubectl_asks_the_cluster(travel: SyncClient, kubectl: FakeKubectl) -> None:
    program = """
import sys
from agentqueue.cli import kubernetes
from agentqueue.cli.main import run
ask = kubernetes.Kubectl.get_agent_queue
def asked(self, place):
    print("redis" in sys.modules)
    return ask(self, place)
kubernetes.Kubectl.get_agent_queue = asked
run(["stats", "--in", "prod/travel"])
"""
    with travel:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[0] == "False"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda it: it.name)
def test_whatever_ends_the_command_ends_the_forwarded_port(
    travel: SyncClient, kubectl: FakeKubectl, number: signal.Signals
) -> None:
    with travel:
        travel.enqueue("greeter", "hello", "you")
    command = [
        sys.executable,
        "-c",
        "from agentqueue.cli.main import main; main()",
        "stats",
        "--watch",
        "--json",
        "--in",
        "prod/travel",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), process.stderr
        process.send_signal(number)
        process.communicate(timeout=20)
    assert process.returncode in (0, 130, 128 + number)
    (pid,) = kubectl.pids("port-forward")
    assert ended(pid)


def test_a_kill_9_of_the_command_ends_it_too(travel: SyncClient, kubectl: FakeKubectl) -> None:
    with travel:
        travel.enqueue("greeter", "hello", "you")
    program = "from agentqueue.cli.main import main; main()"
    command = [sys.executable, "-c", program, "stats", "--watch", "--json", "--in", "prod/travel"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.kill()
    (pid,) = kubectl.pids("port-forward")
    assert ended(pid)


def test_an_error_ends_it_too(travel: SyncClient, kubectl: FakeKubectl) -> None:
    with travel:
        assert run(["status", "nobody", "--in", "prod/travel"]) == 3
    assert all(map(ended, kubectl.pids("port-forward")))


def test_a_port_whose_pod_has_gone_is_forwarded_again(travel: SyncClient, kubectl: FakeKubectl) -> None:
    with travel, connection_from_cluster(ClusterRef("travel", "prod")) as options:
        with SyncClient(options.url) as client:
            assert client.stats() == []
        (first,) = kubectl.pids("port-forward")
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while True:
            try:
                with SyncClient(options.url) as client:
                    assert client.stats() == []
                    break
            except QueueUnavailable:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    assert kubectl.calls("port-forward")[1][-1] == f"{options.url.rpartition(':')[2].partition('/')[0]}:6379"
    assert all(map(ended, kubectl.pids("port-forward")))


@pytest.mark.usefixtures("_redis_installed")
def test_the_managed_redis_may_speak_tls(
    kubectl: FakeKubectl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its certificate is for the Service, not for a port of this machine."""
    certificates, port = issue(tmp_path / "certificates", f"{SERVICE}.prod.svc"), free_port()
    with run_server("redis", certificates.server_config(port, auth_clients=False)):
        kubectl.put(QUEUES, "prod", "travel", managed(tls={"secretName": "travel-tls"}))
        kubectl.put("secret", "prod", SERVICE, secret(url=f"rediss://{SERVICE}.prod.svc:6379/0"))
        kubectl.put("secret", "prod", "travel-tls", secret(ca_crt=certificates.text(certificates.ca)))
        kubectl.serve(port)
        assert run(["stats", "--in", "prod/travel"]) == 0, capsys.readouterr().err


# --- an external Redis: straight


def test_an_external_redis_is_reached_as_the_resource_says(kubectl: FakeKubectl, tmp_path: Path) -> None:
    certificates = issue(tmp_path / "certificates")
    cert, key = map(certificates.text, certificates.of("client"))
    kubectl.put(
        QUEUES,
        "prod",
        "travel",
        external(
            urlSecretRef={"name": "given", "key": "address"},
            tls={"caSecretRef": {"name": "ca", "key": "ca.pem"}, "clientCertificateSecretName": "pair"},
            sentinel={
                "masterName": "jobs",
                "nodes": ["s0:26379", "s1:26379"],
                "passwordSecretRef": {"name": "given", "key": "word"},
            },
        ),
    )
    kubectl.put("secret", "prod", "given", secret(address="redis://:pw@/2\n", word="s3cret"))
    kubectl.put("secret", "prod", "ca", secret(ca_pem=certificates.text(certificates.ca)))
    kubectl.put("secret", "prod", "pair", secret(tls_crt=cert, tls_key=key))
    with connection_from_cluster(ClusterRef("travel", "prod")) as options:
        found = options
    assert found == ServerOptions(
        "redis://:pw@/2",
        tls=Tls(ca_data=certificates.text(certificates.ca).strip(), cert_data=cert.strip(), key_data=key.strip()),
        sentinel=Sentinels("jobs", (("s0", 26379), ("s1", 26379)), "s3cret"),
        label=found.label,
    )
    assert kubectl.calls("port-forward") == []


def test_an_external_redis_out_of_reach_is_called_so(kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str]) -> None:
    kubectl.put(QUEUES, "prod", "travel", external())
    kubectl.put("secret", "prod", "given", secret(url=f"redis://:pw@127.0.0.1:{free_port()}"))
    assert run(["stats", "--in", "prod/travel"]) == 1
    said = capsys.readouterr().err
    assert "an external Redis, which this machine must reach directly" in said
    assert "pw@" not in said


# --- what can be wrong


@pytest.mark.parametrize("text", ["", "/x", "a/b/c", "a/", "-x"])
def test_what_names_no_agentqueue(text: str) -> None:
    with pytest.raises(UsageError, match="must be NAMESPACE/NAME"):
        ClusterRef.parse(text, None)


def test_without_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["stats", "--in", "prod/travel"]) == 2
    assert "--in needs kubectl, which is not on PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("prod/travl", "did you mean 'travel'?"),
        ("prod/zzz", "there is travel"),
        ("test/travel", "the namespace has none"),
    ],
)
def test_an_agentqueue_that_is_not_there(
    kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    kubectl.put(QUEUES, "prod", "travel", managed())
    assert run(["stats", "--in", name]) == 3
    assert f"there is no AgentQueue {name}; {says}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "words", "code", "says"),
    [
        pytest.param(
            QUEUES,
            'error: the server doesn\'t have a resource type "agentqueues"',
            3,
            "this cluster does not have the AgentQueue resource: install the operator",
            id="no-crd",
        ),
        pytest.param(
            QUEUES, 'Error: context "x" does not exist', 1, 'can\'t get AgentQueue prod/travel .*"x"', id="context"
        ),
        pytest.param(QUEUES, "", 1, "kubectl printed no error", id="silence"),
        pytest.param(
            "secret",
            'Error from server (Forbidden): secrets "x" is forbidden: User "me" cannot get resource',
            1,
            f"you may not read Secret prod/{SERVICE} .* ask for the permission to get it, or pass --redis URL",
            id="no-right",
        ),
    ],
)
def test_what_kubectl_refuses(
    kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str], *, kind: str, words: str, code: int, says: str
) -> None:
    kubectl.put(QUEUES, "prod", "travel", managed())
    kubectl.refuse(kind, words)
    assert run(["stats", "--in", "prod/travel"]) == code
    assert re.search(says, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        pytest.param({}, "the operator has not processed it; check that it runs", id="no-operator"),
        pytest.param(
            {"conditions": [{"type": "RedisReady", "reason": "VolumeUnbound", "message": "no StorageClass"}]},
            "is not ready: VolumeUnbound: no StorageClass",
            id="not-ready",
        ),
    ],
)
def test_a_redis_that_is_not_there_yet(
    kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str], status: dict[str, Any], says: str
) -> None:
    kubectl.put(QUEUES, "prod", "travel", managed() | {"status": status})
    assert run(["stats", "--in", "prod/travel"]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(None, f"the Secret prod/{SERVICE} with the address of Redis does not exist", id="no-secret"),
        pytest.param(
            secret(uri="redis://x"), f"Secret prod/{SERVICE} has no key 'url'; did you mean 'uri'?", id="no-key"
        ),
        pytest.param({"data": {"url": "/w=="}}, "the value of key 'url' in the Secret", id="no-text"),
        pytest.param(
            secret(url="redis://x"), f"can't forward a port to service/{SERVICE}: Error from", id="no-service"
        ),
    ],
)
def test_a_secret_or_service_that_will_not_do(
    kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str], body: dict[str, Any] | None, says: str
) -> None:
    kubectl.put(QUEUES, "prod", "travel", managed())
    if body is not None:
        kubectl.put("secret", "prod", SERVICE, body)
    assert run(["stats", "--in", "prod/travel"]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["stats", "--in", "a/b", "--redis", "redis://x"], "--redis and --in exclude each other"),
        (["stats", "--context", "east"], "--context needs --in"),
        (["--in", "a/b", "crd"], "`agentqueue crd` does not connect to a cluster's Redis"),
    ],
)
def test_what_does_not_go_together(line: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line) == 2
    assert says in capsys.readouterr().err


def test_the_nearer_option_goes_before(kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--in", "far/one", "dead", "list", "--in", "near/one"]) == 3
    assert "no AgentQueue near/one" in capsys.readouterr().err
    assert run(["--in", "far/one", "dead", "list"]) == 3
    assert "no AgentQueue far/one" in capsys.readouterr().err


def test_every_command_with_redis_has_it() -> None:

    from agentqueue.cli.main import build_command

    def options(command: Any) -> list[set[str]]:
        children = getattr(command, "commands", None)
        own = {param.name for param in command.params}
        return [own] if children is None else [it for child in children.values() for it in options(child)]

    connecting = [own for own in options(build_command()) if "redis" in own]
    assert len(connecting) >= 14
    assert all(own >= {"in_", "context"} for own in connecting)


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("redis://host:6379/0", "redis://127.0.0.1:7/0"),
        ("rediss://default:p%40ss@host", "rediss://default:p%40ss@127.0.0.1:7"),
    ],
)
def test_a_url_by_a_port_of_this_machine(url: str, there: str) -> None:
    assert at_port(url, 7) == there
