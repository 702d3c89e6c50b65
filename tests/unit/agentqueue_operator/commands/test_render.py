"""Tests of `agentqueue render`."""

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agentqueue.cli.main import run
from agentqueue_operator.resources.printing import as_json, as_yaml

RESOURCE = """\
apiVersion: agentqueue.dev/v1alpha1
kind: AgentQueue
metadata: {name: one}
spec:
  agents: [{name: echo, handler: "m:a"}]
"""
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "aq.yaml"
    path.write_text(f"{CONFIG}---\n{RESOURCE}")
    return path


def documents(text: str) -> list[Any]:
    return list(yaml.safe_load_all(text))


def test_it_prints_one_document_for_each_object(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["render", str(file)]) == 0
    found = documents(capsys.readouterr().out)
    assert {"StatefulSet", "Deployment", "Secret", "Service"} <= {it["kind"] for it in found}
    assert {it["metadata"]["namespace"] for it in found} == {"default"}
    assert "ConfigMap/c" not in {f"{it['kind']}/{it['metadata']['name']}" for it in found}, "only what is made of it"


def test_json_is_one_list_of_the_same_objects(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["render", str(file), "-n", "agents"]) == 0
    as_documents = documents(capsys.readouterr().out)
    assert run(["render", str(file), "--namespace", "agents", "--output", "json"]) == 0
    as_list = json.loads(capsys.readouterr().out)
    assert (as_list["kind"], as_list["items"]) == ("List", as_documents)
    assert {it["metadata"]["namespace"] for it in as_documents} == {"agents"}


@pytest.mark.parametrize("output", ["yaml", "json"])
def test_manifests_are_utf_8_whatever_letters_the_locale_has(file: Path, output: str) -> None:
    file.write_text(RESOURCE.replace(': "m:a"', ': "m:a", podTemplate: {metadata: {annotations: {to: Zürich}}}'))
    ascii_only, utf_8 = (
        subprocess.run(
            [sys.executable, "-c", "from agentqueue.cli.main import main; main()", "render", str(file), "-o", output],
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
            check=True,
        ).stdout
        for encoding in ("ascii", "utf-8")
    )
    assert ascii_only == utf_8
    assert "Zürich" in utf_8.decode()


def test_the_resources_own_namespace_is_taken_and_standard_input_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(RESOURCE.replace("name: one", "name: one, namespace: own")))
    assert run(["render", "-"]) == 0
    assert {it["metadata"]["namespace"] for it in documents(capsys.readouterr().out)} == {"own"}


def test_secrets_are_readable_and_marked_as_placeholders(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["render", str(file)]) == 0
    secrets = [it for it in documents(capsys.readouterr().out) if it["kind"] == "Secret"]
    assert len(secrets) == 2
    for secret in secrets:
        assert "data" not in secret
        assert all("PLACEHOLDER" in value for value in secret["stringData"].values())


def test_images_are_those_of_the_operators_settings(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTQUEUE_OPERATOR_WORKER_IMAGE", "registry/worker:7")
    assert run(["render", str(file)]) == 0
    assert "image: registry/worker:7\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        pytest.param(RESOURCE.replace("handler", "hander"), 1, "handler", id="a-typo"),
        pytest.param(CONFIG, 1, "has no AgentQueue", id="nothing-to-render"),
        pytest.param("a: [", 1, "not YAML", id="no-yaml"),
        pytest.param(
            RESOURCE.replace('"m:a"', '"m:a", podTemplate: {spec: {volumes: [{emptyDir: {}}]}}'),
            1,
            "agent echo: podTemplate.spec.volumes[0] lacks its merge key name",
            id="a-template-that-cannot-be-laid-over",
        ),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    file: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, said: str
) -> None:
    file.write_text(text)
    assert run(["render", str(file)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_file_that_is_not_there_is_not_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["render", str(tmp_path / "none.yaml")]) == 3
    assert "no such file" in capsys.readouterr().err


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.text(max_size=12),
    st.from_regex(r"[-+0-9.:_eExXbo]{1,8}", fullmatch=True),
    st.sampled_from(
        ["on", "Yes", "n", "~", "=", "<<", "null", "1_000", "0x1F", "12:30", "2026-01-01", "1e3", "- a", "a: b"]
    ),
)
keys = st.one_of(st.text(min_size=1, max_size=6), st.sampled_from(["on", "y", "1", "<<", "="]))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
texts = st.text(st.sampled_from("ab \n\t#:-\\\"'é"), max_size=12)


@given(st.lists(st.dictionaries(keys, st.one_of(values, texts), min_size=1, max_size=3), max_size=2))
def test_yaml_reads_back_as_it_was_with_a_yaml_1_1_reader(manifests: list[Any]) -> None:
    """The YAML parser follows kubectl, for which `on` is true and 12:30 is a number."""
    assert documents(as_yaml(manifests)) == manifests
    assert json.loads(as_json(manifests))["items"] == manifests
