"""`agentqueue check` loads an agent, and warns of code that does not work over suspensions."""

import json
from pathlib import Path

import pytest

from agentqueue.cli.main import run

SOURCE = """
import asyncio

from agentqueue import Agent, Context

{name} = Agent("shop")
nothing = 5


@{name}.job
async def buy(ctx: Context) -> None:
    {body}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_warning_names_file_and_line_and_ends_with_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "await asyncio.wait_for(ctx.wait_for('go'), 5)"
    (folder / "slow_shop.py").write_text(SOURCE.format(name="agent", body=body))
    assert run(["check", "slow_shop:agent"]) == 1
    out, err = capsys.readouterr()
    assert out == "slow_shop:agent: queue shop, jobs: buy\n"
    assert err.startswith(f"{folder / 'slow_shop.py'}:12: asyncio.wait_for around ctx.wait_for starts again")
    assert run(["check", "slow_shop:agent", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["queue"], found["jobs"], [it["line"] for it in found["warnings"]]) == ("shop", ["buy"], [12])


def test_an_agent_without_problems_ends_with_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good_shop.py").write_text(SOURCE.format(name="agent", body="await ctx.wait_for('go', timeout=5)"))
    assert run(["check", "good_shop:agent"]) == 0
    assert capsys.readouterr().err == ""


def test_what_is_no_agent_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "no_shop.py").write_text(SOURCE.format(name="agent", body="pass"))
    assert run(["check", "no_shop:nothing"]) == 2
    assert "no_shop:nothing is int and no Agent" in capsys.readouterr().err
