"""What the test cluster decides without a machine: addresses, verbs, what is kept."""

import os
from pathlib import Path

import pytest

from tests.support.cluster.images import Image, build
from tests.support.cluster.layout import NODES, SLOTS, SPACE, Layout, choose_slot
from tests.support.cluster.program import remove_all_but_newest
from tests.support.cluster.proxy import verb_of

DOCKER = """#!/bin/sh
echo "$@" >> "$DOCKER_CALLS"
case "$1 $2" in
  "images --no-trunc") echo sha256:0123456789abcdef ;;
  "save --output") echo image > "$3" ;;
esac
"""


def test_addresses_of_different_slots_and_purposes_never_meet() -> None:
    layouts = [Layout(Path("/var/tmp/x"), slot) for slot in range(SLOTS)]
    ranges = [part for one in layouts for part in (one.machines, one.pods, one.services)]
    assert all(part.subnet_of(SPACE) for part in ranges)
    assert not any(a.overlaps(b) for n, a in enumerate(ranges) for b in ranges[:n])


def test_each_node_has_pods_of_its_own_and_an_address_among_the_machines() -> None:
    layout = Layout(Path("/var/tmp/x"), 3)
    pods = [layout.node_pods(node) for node in NODES]
    assert not any(a.overlaps(b) for n, a in enumerate(pods) for b in pods[:n])
    assert all(part.subnet_of(layout.pods) for part in pods)
    addresses = {layout.host, layout.control, *map(layout.node, NODES)}
    assert len(addresses) == 2 + len(NODES)
    assert all(address in layout.machines for address in addresses)


def test_a_folder_keeps_its_slot_unless_another_has_it() -> None:
    mine = choose_slot(Path("/var/tmp/x"), ())
    assert choose_slot(Path("/var/tmp/x"), {(mine + 1) % SLOTS}) == mine
    assert choose_slot(Path("/var/tmp/x"), {mine}) == (mine + 1) % SLOTS
    with pytest.raises(ValueError, match="all 16 address ranges are taken"):
        choose_slot(Path("/var/tmp/x"), range(SLOTS))


@pytest.mark.parametrize("folder", ["/run/x", "/var/lib/x", "/var/log/a/b"])
def test_a_folder_that_machines_hide_is_refused(folder: str) -> None:
    with pytest.raises(ValueError, match="the state folder can't be in"):
        Layout(Path(folder), 0)


@pytest.mark.parametrize(
    ("method", "path", "verb"),
    [
        ("GET", "/api/v1/namespaces", "list"),
        ("GET", "/api/v1/namespaces/n", "get"),
        ("GET", "/api/v1/namespaces/n/pods", "list"),
        ("GET", "/api/v1/namespaces/n/pods/p", "get"),
        ("GET", "/api/v1/namespaces/n/pods/p/log", "get"),
        ("GET", "/apis/apps/v1/deployments", "list"),
        ("GET", "/apis/apps/v1/namespaces/n/deployments/d", "get"),
        ("GET", "/version", "get"),
        ("POST", "/api/v1/namespaces/n/pods", "create"),
        ("PUT", "/api/v1/namespaces/n/pods/p/status", "update"),
        ("PATCH", "/api/v1/namespaces/n/pods/p", "patch"),
        ("DELETE", "/api/v1/namespaces/n/pods/p", "delete"),
        ("DELETE", "/api/v1/namespaces/n/pods", "deletecollection"),
    ],
)
def test_requests_are_known_by_kubernetes_own_verbs(method: str, path: str, verb: str) -> None:
    assert verb_of(method, path, watch=False) == verb
    assert verb_of(method, path, watch=True) == "watch"


def test_of_what_is_kept_the_last_used_stays(tmp_path: Path) -> None:
    for age, name in enumerate(["newest", "second", "third", "oldest"]):
        entry = tmp_path / name
        entry.mkdir() if age % 2 else entry.touch()
        os.utime(entry, (1_000 - age, 1_000 - age))
    remove_all_but_newest(tmp_path.iterdir(), 2)
    assert {entry.name for entry in tmp_path.iterdir()} == {"newest", "second"}


def test_images_are_built_once_and_by_docker_where_buildah_can_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/bin")
    monkeypatch.setenv("DOCKER_CALLS", str(calls))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    context = tmp_path / "context"
    (context / "src").mkdir(parents=True)
    for name in ("Dockerfile", "src/code", "notes"):
        (context / name).write_text("1")
    (context / ".dockerignore").write_text("*\n!src\n")
    image = Image("localhost/x:dev", context / "Dockerfile", context, (("KIND", "test"),))

    def builds() -> list[str]:
        return [line for line in calls.read_text().splitlines() if line.startswith("build ")]

    first = build(image)
    assert (first.read_text(), first.parent) == ("image\n", tmp_path / "cache/agentqueue/images")
    how = f"--build-arg KIND=test --tag localhost/x:dev --file {context}/Dockerfile {context}"
    assert builds() == [f"build --quiet {how}"]
    (context / "notes").write_text("2")  # no layer has it
    assert build(image) == first
    assert len(builds()) == 1
    (context / "src/code").write_text("2")
    assert build(image) != first
    assert len(builds()) == 2
