"""The Tiltfile, run by a Starlark interpreter with a fake Tilt that records its calls."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import starlark as sl
import yaml

from agentqueue.spec import load

ROOT = Path(__file__).parents[3]
INSTALLED = "what the chart renders to"


@dataclass
class Tilt:
    """Tilt's functions, as far as the Tiltfile uses them."""

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def run(self, source: str) -> None:
        """Run a Tiltfile."""
        module = sl.Module()
        for name in ("allow_k8s_contexts", "docker_build", "k8s_kind", "k8s_yaml", "k8s_resource"):
            module.add_callable(name, self._noting(name))
        for name in ("sync", "run", "fall_back_on"):
            module.add_callable(name, lambda *given, name=name: {name: list(given)})
        module.add_callable("helm", self._helm)
        module.add_callable("read_yaml_stream", lambda path: list(yaml.safe_load_all((ROOT / path).read_text())))
        module.add_callable("encode_yaml_stream", yaml.safe_dump_all)
        sl.eval(module, sl.parse("Tiltfile", source), sl.Globals.standard())

    def asked(self, name: str) -> Sequence[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The arguments of each call of a function."""
        return [(given, named) for called, given, named in self.calls if called == name]

    def _noting(self, name: str) -> Any:
        def called(*given: Any, **named: Any) -> None:
            self.calls.append((name, given, named))

        return called

    def _helm(self, chart: str, **named: Any) -> str:
        self.calls.append(("helm", (chart,), named))
        return INSTALLED


@pytest.fixture
def tilt() -> Tilt:
    found = Tilt()
    found.run((ROOT / "Tiltfile").read_text())
    return found


def image(tilt: Tilt, name: str) -> dict[str, Any]:
    (found,) = [named | {"context": given[1]} for given, named in tilt.asked("docker_build") if given[0] == name]
    return found


def queue(tilt: Tilt) -> Any:
    (text,) = [given[0] for given, _ in tilt.asked("k8s_yaml") if "kind: AgentQueue" in given[0]]
    return yaml.safe_load(text)


def test_all_three_images_are_built_of_files_that_are_there(tilt: Tilt) -> None:
    assert {given[0] for given, _ in tilt.asked("docker_build")} == {
        "agentqueue-operator",
        "agentqueue-worker",
        "agentqueue-travel",
    }
    for given, named in tilt.asked("docker_build"):
        context = ROOT / given[1]
        assert (ROOT / named.get("dockerfile", f"{given[1]}/Dockerfile")).is_file()
        assert all((context / path).exists() for path in named.get("only", []))


@pytest.mark.parametrize("part", ["operator", "worker"])
def test_a_build_is_told_of_every_file_that_its_dockerfile_copies(tilt: Tilt, part: str) -> None:
    lines = (ROOT / part / "Dockerfile").read_text().splitlines()
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    only = image(tilt, f"agentqueue-{part}")["only"]
    assert copied
    assert all(any(path == given or path.startswith(f"{given}/") for given in only) for path in copied)


def test_users_image_stands_on_the_worker_that_is_built_here(tilt: Tilt) -> None:
    (argument,) = image(tilt, "agentqueue-travel")["build_args"]
    assert f"ARG {argument}=" in (ROOT / "examples" / "travel" / "Dockerfile").read_text()
    assert image(tilt, "agentqueue-worker")["match_in_env_vars"] is True


def test_changed_handlers_are_put_where_the_image_has_them(tilt: Tilt) -> None:
    steps = image(tilt, "agentqueue-travel")["live_update"]
    assert [next(iter(step)) for step in steps] == ["fall_back_on", "sync", "run"]
    source, target = steps[1]["sync"]
    assert (ROOT / source).is_dir()
    assert f"COPY {Path(source).name} {target}" in (ROOT / "examples" / "travel" / "Dockerfile").read_text()


def test_operator_is_installed_by_the_chart(tilt: Tilt) -> None:
    ((chart,), named), *others = tilt.asked("helm")
    assert not others
    assert (ROOT / chart / "Chart.yaml").is_file()
    assert (
        named["namespace"]
        == yaml.safe_load((ROOT / "manifests/install/namespace.yaml").read_text())["metadata"]["name"]
    )
    assert [given for given, _ in tilt.asked("k8s_yaml") if given == (INSTALLED,)] == [(INSTALLED,)]


def test_sample_is_a_valid_agentqueue_with_the_image_where_tilt_looks(tilt: Tilt) -> None:
    found = queue(tilt)
    load(json.dumps(found))
    ((kind,), named), *_ = tilt.asked("k8s_kind")
    assert (kind, named["api_version"]) == (found["kind"], found["apiVersion"])
    assert "{.spec.agentDefaults.image}" in named["image_json_path"]
    assert found["spec"]["agentDefaults"]["image"].startswith("agentqueue-travel")


def test_developing_workers_code_is_in_a_volume_that_outlives_the_worker(tilt: Tilt) -> None:
    pod = queue(tilt)["spec"]["agentDefaults"]["podTemplate"]["spec"]
    (container,) = pod["containers"]
    assert {"name": "developing", "mountPath": "/app"} in container["volumeMounts"]
    assert {"name": "developing", "emptyDir": {}} in pod["volumes"]
    assert container["command"][:2] == ["sh", "-c"]


def test_sample_waits_for_the_operator(tilt: Tilt) -> None:
    assert [named["resource_deps"] for given, named in tilt.asked("k8s_resource") if given == ("travel",)] == [
        ["agentqueue-operator"]
    ]


@pytest.fixture
def shell(tilt: Tilt, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The developing container's first process, whose worker writes down its starts and ends on TERM."""
    (tmp_path / "python").write_text(f"#!{sys.executable}\n{WORKER}")
    (tmp_path / "python").chmod(0o755)
    (container,) = queue(tilt)["spec"]["agentDefaults"]["podTemplate"]["spec"]["containers"]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(container["command"], cwd=tmp_path, env={"PATH": path}, start_new_session=True) as process:
        yield process
        process.kill()


WORKER = """
import pathlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # kept until sigwait takes it
with pathlib.Path("starts").open("a") as file:
    print(*sys.argv[1:], file=file)
signal.sigwait({signal.SIGTERM})
"""


def until_started(folder: Path, times: int) -> None:
    """Until the worker has started so often, always in the same way."""
    deadline = time.monotonic() + 30
    starts = folder / "starts"
    while not starts.exists() or starts.read_text() != "-m agentqueue_worker\n" * times:
        assert time.monotonic() < deadline, starts.read_text() if starts.exists() else "never started"
        time.sleep(0.02)


def test_hup_starts_the_worker_anew_and_term_ends_both(shell: subprocess.Popen[bytes], tmp_path: Path) -> None:
    until_started(tmp_path, 1)
    shell.send_signal(signal.SIGHUP)
    until_started(tmp_path, 2)
    shell.send_signal(signal.SIGTERM)
    assert shell.wait(30) == 0
    until_started(tmp_path, 2)
