"""`agentqueue validate` and `agentqueue crd`."""

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from agentqueue.cli import resource
from agentqueue.errors import NotFound
from agentqueue.spec.crd import crd, crd_yaml

ROOT = Path(__file__).parents[4]
SAMPLES = ROOT / "manifests/samples"
APP = typer.Typer()
resource.register(APP)

BAD = """\
apiVersion: agentqueue.dev/v1alpha1
kind: AgentQueue
metadata: {name: q}
spec: {agents: [{name: a, handler: xyz}]}
"""


def run(*args: str, stdin: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(APP, args, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_valid_file_is_reported_with_its_agents_and_other_resources() -> None:
    path = SAMPLES / "external-redis-tls.yaml"
    assert run("validate", str(path)) == (
        0,
        f"{path}: AgentQueue reports is valid (agents: summaries)\n{path}: not checked: Secret\n",
        "",
    )


def test_a_valid_file_with_nothing_else_in_it() -> None:
    code, out, err = run("validate", "-", stdin=BAD.replace("xyz", "'m:a'"))
    assert (code, out, err) == (0, "<stdin>: AgentQueue q is valid (agents: a)\n", "")


def test_a_valid_file_as_json() -> None:
    code, out, _ = run("validate", str(SAMPLES / "external-redis-tls.yaml"), "--json")
    assert code == 0
    assert json.loads(out) == {
        "valid": True,
        "queues": [{"name": "reports", "agents": ["summaries"]}],
        "others": ["Secret"],
    }


def test_problems_go_to_stderr_and_exit_1() -> None:
    code, out, err = run("validate", "-", stdin=BAD)
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        '<stdin>:4: spec.agents[0].handler: must be module:attribute, as in travel.flight_search:agent; is "xyz"',
        "1 problem",
    ]


def test_problems_as_json() -> None:
    code, out, _ = run("validate", "-", "--json", stdin=BAD.replace("handler: xyz", "hander: 'm:a'"))
    found = json.loads(out)
    assert (code, found["valid"]) == (1, False)
    assert [(p["path"], p["line"], p["source"]) for p in found["problems"]] == [
        ("spec.agents[0].handler", 4, "<stdin>"),
        ("spec.agents[0].hander", 4, "<stdin>"),
    ]


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "output"),
    [
        pytest.param(("validate", "-"), "{spec}# Zürich", 0, "agents: a", id="utf-8-in"),
        pytest.param(("validate", "-", "--json"), "{spec}zürich: 1", 1, "zürich", id="json-out"),
        pytest.param(("validate", "-"), None, 1, "no AgentQueue", id="closed"),
    ],
)
def test_a_locale_without_unicode(arguments: tuple[str, ...], stdin: str | None, code: int, output: str) -> None:
    start = "from agentqueue.cli.main import main; main()"
    text = None if stdin is None else stdin.format(spec=BAD.replace("xyz", "'m:a'")).encode()
    done = subprocess.run(
        ["sh", "-c", 'exec "$@"' + (" <&-" if text is None else ""), "sh", sys.executable, "-c", start, *arguments],
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        input=text,
        capture_output=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    out = (done.stdout + done.stderr).decode("ascii")
    assert output in (json.dumps(json.loads(out), ensure_ascii=False) if "--json" in arguments else out)


def test_a_file_without_an_agent_queue_is_a_problem() -> None:
    code, _, err = run("validate", "-", stdin="apiVersion: v1\nkind: Pod\n")
    assert code == 1
    assert "has no AgentQueue (found: Pod)" in err


def test_a_change_is_checked_against_the_old_file(tmp_path: Path) -> None:
    good = BAD.replace("handler: xyz", "handler: 'm:a'")
    (tmp_path / "old.yaml").write_text(good.replace("spec: {", "spec: {redis: {managed: {storage: {size: 3Gi}}}, "))
    code, _, err = run("validate", "-", "--old", str(tmp_path / "old.yaml"), stdin=good)
    assert code == 1
    assert "storage.size can only grow" in err


def test_the_command_reports_a_missing_file() -> None:
    with pytest.raises(NotFound, match=r"gone\.yaml: no such file"):
        run("validate", "gone.yaml")


def test_crd_prints_yaml_or_json() -> None:
    assert run("crd") == (0, crd_yaml(), "")
    code, out, _ = run("crd", "--json")
    assert code == 0
    assert json.loads(out) == yaml.safe_load(crd_yaml()) == json.loads(json.dumps(crd()))


def test_the_command_finds_them() -> None:
    (found,) = entry_points(group="agentqueue.commands", name="resource")
    assert found.load() is resource.register


@pytest.mark.parametrize("module", ["agentqueue", "agentqueue.cli.resource", "agentqueue.service.environment"])
def test_the_module_imports_neither_pydantic_nor_yaml(module: str) -> None:
    code = (
        f"import sys, {module}; print([m for m in ('pydantic', 'ruamel.yaml', 'agentqueue.spec') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
