"""A user's mistake is reported as one line with its place. Only bugs ask the user for a report."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentqueue.cli.main import run
from tests.support.servers import run_server

AGENT = "from agentqueue import Agent\nagent = Agent('a')\n"
JOB = f"{AGENT}@agent.job\nasync def work(ctx): ...\n"
RESOURCE = """
apiVersion: agentqueue.dev/v1alpha1
kind: AgentQueue
metadata: {name: q}
spec: {agents: [{name: a, handler: "user_code:agent"}], redis: {managed: {}}}
"""
AS_ROOT = os.geteuid() == 0
COMMAND = "from agentqueue.cli.main import main; main()"


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with run_server("valkey") as server:
        yield server.url


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTQUEUE_REDIS_URL", redis_url)


def last_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the last line of a command that fails, without a traceback and without asking for a report."""
    code = run(words)
    err = capsys.readouterr().err
    assert code in (1, 2, 3), err
    assert "report it" not in err
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


def ended(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (1, 2, 3), done.stderr
    assert "report it" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        pytest.param(
            "import nothing_of_that_name\n",
            "No module named 'nothing_of_that_name' (user_code.py, line 1)",
            id="import",
        ),
        pytest.param("x = 1\ndef broken(:\n", "SyntaxError: invalid syntax (user_code.py, line 2)", id="syntax"),
        pytest.param(
            "def f():\n    1 / 0\nf()\n", "ZeroDivisionError: division by zero (user_code.py, line 2)", id="raises"
        ),
        pytest.param("import sys\nsys.exit(0)\n", "SystemExit: 0 (user_code.py, line 2)", id="ends-the-process"),
        pytest.param("import helper\n", "(most likely due to a circular import)", id="circular"),
        pytest.param("import json\njson.loads('{')\n", "char 1) (user_code.py, line 2)", id="raises-in-a-library"),
        pytest.param(b"x = '\xff'\n", "SyntaxError: (unicode error)", id="not-utf8"),
        pytest.param("", "has no 'agent'", id="no-agent"),
        pytest.param(AGENT, "has no jobs", id="no-jobs"),
        pytest.param("agent = 5\n", "neither an Agent nor an arq WorkerSettings", id="another-type"),
        pytest.param(
            "import typing\n"
            + AGENT
            + "class P(typing.TypedDict):\n    x: int\n@agent.job\ndef work(ctx, p: P): ...\n",
            "import TypedDict from typing_extensions",
            id="typed-dict",
            marks=pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes it from Python 3.12"),
        ),
    ],
)
def test_code_that_can_not_be_served(code: str | bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "user_code.py").write_bytes(code if isinstance(code, bytes) else code.encode())
    (tmp_path / "helper.py").write_text("from user_code import agent\n")
    said = ended([sys.executable, "-m", "agentqueue_worker", "user_code:agent"])
    assert says in said
    assert "<frozen" not in said


@pytest.mark.parametrize("start", [["-m", "agentqueue_worker"], ["-c", COMMAND, "worker"]], ids=["module", "command"])
def test_a_startup_hook_that_raises(start: list[str], tmp_path: Path) -> None:
    (tmp_path / "user_code.py").write_text(
        JOB + "@agent.startup\nasync def connect(ctx):\n    raise OSError('no database')\n"
    )
    assert ended([sys.executable, *start, "user_code:agent"]).endswith(
        "your code raised OSError: no database (user_code.py, line 7)"
    )


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AGENTQUEUE_CONCURRENCY", "many", "AGENTQUEUE_CONCURRENCY='many'"),
        ("AGENTQUEUE_LOG_LEVEL", "loud", "AGENTQUEUE_LOG_LEVEL='loud'"),
        ("AGENTQUEUE_PROBE_PORT", "x", "AGENTQUEUE_PROBE_PORT='x'"),
        ("AGENTQUEUE_REDIS_URL", "localhost:6379", "AGENTQUEUE_REDIS_URL: the Redis URL"),
        ("AGENTQUEUE_REDIS_CA_FILE", "/nowhere.pem", "/nowhere.pem"),
        ("AGENTQUEUE_REDIS_TLS", "maybe", "AGENTQUEUE_REDIS_TLS"),
    ],
)
def test_a_variable_that_can_not_be(name: str, value: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "user_code.py").write_text(JOB)
    assert says in ended([sys.executable, "-m", "agentqueue_worker", "user_code:agent"], **{name: value})


def test_a_port_in_use(tmp_path: Path) -> None:
    (tmp_path / "user_code.py").write_text(JOB)
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("0.0.0.0", 0)) as every:
        for port, command in (
            (taken.getsockname()[1], ["-m", "agentqueue.console"]),
            (every.getsockname()[1], ["-m", "agentqueue_worker", "user_code:agent"]),
        ):
            said = ended([sys.executable, *command], AGENTQUEUE_CONSOLE_PORT=str(port), AGENTQUEUE_PROBE_PORT=str(port))
            assert str(port) in said


@pytest.mark.parametrize("command", [["validate"], ["render"], ["up"], ["submit", "a", "b", "@"]], ids=" ".join)
def test_files_that_can_not_be_read(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe4\n")
    (tmp_path / "broken.yaml").write_text("a: [1\nb: {\n")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    names = [
        "missing.yaml",
        "folder.yaml",
        "latin.yaml",
        "broken.yaml",
        "loop.yaml",
        "x" * 300 + ".yaml",
        "latin.yaml/x",
    ]
    if not AS_ROOT:
        (tmp_path / "secret.yaml").write_text(RESOURCE)
        (tmp_path / "secret.yaml").chmod(0)
        names.append("secret.yaml")
    for name in names:
        *words, last = command
        whole = [*words, f"@{name}"] if last == "@" else [*command, name]
        said = last_line(whole, capsys)
        assert name[:60] in said or "problem" in said, (name, said)


def test_a_data_folder_that_can_not_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "q.yaml").write_text(RESOURCE)
    (tmp_path / "file").write_text("")
    assert "file" in last_line(["up", "q.yaml", "--data", "file"], capsys)


def test_a_full_disk() -> None:
    full = Path("/dev/full")
    if not full.exists() or not stat.S_ISCHR(full.stat().st_mode):
        pytest.fail("this machine has no /dev/full")
    with full.open("w") as out:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, "crd"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the output can't be written: No space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, "crd"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
