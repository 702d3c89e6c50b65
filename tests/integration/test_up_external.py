"""Tests of `agentqueue up` with an external Redis, over TLS and behind Sentinels."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentqueue.cli.main import run
from agentqueue.errors import InvalidSpec
from agentqueue.service import environment as env
from agentqueue.spec import load_file, resolve
from agentqueue.spec.redis import ExternalRedis
from agentqueue.store import Sentinels, ServerOptions, Tls
from agentqueue_operator.local.external_redis import external_server
from tests.support.certificates import Certificates, issue
from tests.support.sentinel import MASTER, run_watched
from tests.support.servers import free_port, run_server

URL = "redis://:pw@redis.example/2"
CODE = """
from agentqueue import Agent, Context

agent = Agent("shop")


@agent.job
async def sell(ctx: Context) -> str:
    return "sold"
"""


def resource(**external: Any) -> dict[str, Any]:
    return {
        "apiVersion": "agentqueue.dev/v1alpha1",
        "kind": "AgentQueue",
        "metadata": {"name": "shop"},
        "spec": {
            "redis": {"external": {"urlSecretRef": {"name": "given"}, **external}},
            "agents": [{"name": "shop", "image": "example/shop:1", "handler": "shop_agents:agent"}],
        },
    }


def secret(name: str, **values: str) -> dict[str, Any]:
    data = {key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def write(folder: Path, *documents: dict[str, Any]) -> Path:
    path = folder / "agentqueue.yaml"
    path.write_text("\n---\n".join(map(json.dumps, documents)))
    return path


def found(folder: Path, *documents: dict[str, Any], **shell: str) -> ServerOptions:
    loaded = load_file(write(folder, *documents))
    redis = resolve(loaded.one()).redis
    assert isinstance(redis, ExternalRedis)
    return external_server(redis, loaded, shell, folder)


FULL = {
    "tls": {"caSecretRef": {"name": "ca", "key": "ca.crt"}, "clientCertificateSecretName": "pair"},
    "sentinel": {
        "masterName": "jobs",
        "nodes": ["s0:26379", "s1:26379"],
        "passwordSecretRef": {"name": "given", "key": "word"},
    },
}
SENTINELS = Sentinels("jobs", (("s0", 26379), ("s1", 26379)), "s3cret")


# --- where it is found


def test_all_of_it_may_be_in_the_file(tmp_path: Path) -> None:
    options = found(
        tmp_path,
        resource(**FULL),
        secret("given", url=URL + "\n", word="s3cret\n"),
        secret("ca", ca_crt="CA"),
        secret("pair", tls_crt="CERT", tls_key="KEY"),
    )
    folder = tmp_path / "tls"
    assert options == ServerOptions(
        URL,
        tls=Tls(str(folder / "ca-ca.crt"), str(folder / "pair-tls.crt"), str(folder / "pair-tls.key")),
        sentinel=SENTINELS,
    )
    assert (folder / "pair-tls.key").read_text() == "KEY"
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.glob("*-*"))


def test_all_of_it_may_be_in_the_shell(tmp_path: Path) -> None:
    shell = {
        env.REDIS_URL: URL,
        env.REDIS_CA_FILE: "/ca.pem",
        env.REDIS_CERT_FILE: "/tls.crt",
        env.REDIS_KEY_FILE: "/tls.key",
        env.REDIS_SENTINEL_PASSWORD: "s3cret",
    }
    assert found(tmp_path, resource(**FULL), **shell) == ServerOptions(
        URL, tls=Tls("/ca.pem", "/tls.crt", "/tls.key"), sentinel=SENTINELS
    )
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize(
    ("external", "shell", "says"),
    [
        pytest.param({}, {}, r"key url of the Secret given.*set AGENTQUEUE_REDIS_URL", id="url"),
        pytest.param(
            {"tls": FULL["tls"]},
            {env.REDIS_URL: URL},
            r"key ca.crt of the Secret ca.*AGENTQUEUE_REDIS_CA_FILE",
            id="ca",
        ),
        pytest.param(
            {"tls": {"clientCertificateSecretName": "pair"}},
            {env.REDIS_URL: URL},
            r"key tls.crt of the Secret pair.*AGENTQUEUE_REDIS_CERT_FILE",
            id="certificate",
        ),
        pytest.param(
            {"sentinel": FULL["sentinel"]},
            {env.REDIS_URL: URL},
            r"key word of the Secret given.*AGENTQUEUE_REDIS_SENTINEL_PASSWORD",
            id="password",
        ),
    ],
)
def test_what_is_in_neither_is_named(
    tmp_path: Path, external: dict[str, Any], shell: dict[str, str], says: str
) -> None:
    with pytest.raises(InvalidSpec, match=says):
        found(tmp_path, resource(**external), **shell)


# --- up


@contextmanager
def up(folder: Path, *documents: dict[str, Any]) -> Iterator["subprocess.Popen[str]"]:
    """Run `up` until the end of the block, and drain it then."""
    (folder / "shop_agents.py").write_text(CODE)
    environ = {name: value for name, value in os.environ.items() if name not in (*env.CONNECTION, "REDIS_URL")}
    process = subprocess.Popen(
        [sys.executable, "-c", "from agentqueue.cli.main import main; main()", "up", str(write(folder, *documents))],
        cwd=folder,
        # Settings of another server's TLS must not reach workers of this one.
        env=environ | {env.REDIS_INSECURE_SKIP_VERIFY: "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ctrl-C drains" in line:
                break
        else:
            raise AssertionError("up has ended")
        yield process
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=40)
        assert process.returncode == 0, said
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _redis_installed: None) -> Path:
    for name in (*env.CONNECTION, "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sell(capsys: pytest.CaptureFixture[str]) -> str:
    """Send a job with the command line, which finds the server of `up`, and wait for its result."""
    capsys.readouterr()
    assert run(["submit", "shop", "sell", "--wait", "--force"]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_workers_and_commands_reach_a_server_over_tls(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificates, port = issue(here / "certificates", "localhost"), free_port()
    cert, key = map(certificates.text, certificates.of("client"))
    documents = (
        resource(tls={"caSecretRef": {"name": "ca", "key": "ca.crt"}, "clientCertificateSecretName": "pair"}),
        secret("given", url=f"redis://localhost:{port}"),
        secret("ca", ca_crt=Certificates.text(certificates.ca)),
        secret("pair", tls_crt=cert, tls_key=key),
    )
    with run_server("redis", certificates.server_config(port)), up(here, *documents):
        assert "sold" in sell(capsys)


def test_workers_and_commands_reach_a_primary_that_sentinels_name(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_watched() as watched:
        nodes = [f"{host}:{port}" for host, port in watched.nodes]
        documents = (
            resource(sentinel={"masterName": MASTER, "nodes": nodes}),
            secret("given", url="redis://"),
        )
        with up(here, *documents):
            assert "sold" in sell(capsys)
