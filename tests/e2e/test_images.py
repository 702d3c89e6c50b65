"""The images: small, not root, without compilers, honest about what is in them."""

import json
import re
from collections.abc import Callable

import pytest

from tests.support.archives import Archive
from tests.support.cluster import images
from tests.support.cluster.images import OPERATOR, WORKER, Image
from tests.support.cluster.kube import Kube
from tests.support.cluster.manifests import container, pod
from tests.support.installs import TRAVEL
from tools.sbom import path_of

OURS = {"operator": OPERATOR, "worker": WORKER}
MB = 1_000_000
TOOLS = ("gcc", "cc", "g++", "make", "ld", "as", "cargo", "go", "node")


@pytest.fixture(scope="session")
def archive(all_images: None) -> Callable[[Image], Archive]:
    """An image's archive."""
    return lambda image: Archive(images.build(image))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, all_images: None) -> Archive:
    """What all of them stand on."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nENV BASE=1\n")
    return Archive(images.build(Image("localhost/agentqueue-base:dev", folder / "Dockerfile", folder)))


@pytest.mark.parametrize("part", OURS)
def test_image_adds_little_to_its_base(part: str, archive: Callable[[Image], Archive], base: Archive) -> None:
    added = [size for digest, size in archive(OURS[part]).layers.items() if digest not in base.layers]
    assert added
    assert sum(added) < 120 * MB, f"{part}: {sum(added) / MB:.0f} MB over the base"


@pytest.mark.parametrize("part", OURS)
def test_image_runs_as_nobody_and_loses_no_sigterm(part: str, archive: Callable[[Image], Archive]) -> None:
    config = archive(OURS[part]).config
    assert config["User"] == "65532:65532"
    # No shell between, which would keep SIGTERM for itself; env blocks it and becomes Python.
    assert config["Entrypoint"] == ["env", "--block-signal=TERM", "python", "-m", f"agentqueue_{part}"]
    assert "Cmd" not in config or not config["Cmd"]


@pytest.mark.parametrize("part", OURS)
def test_image_tells_what_it_is(part: str, archive: Callable[[Image], Archive]) -> None:
    labels = archive(OURS[part]).config["Labels"]
    wanted = ("title", "description", "licenses", "version", "revision")
    assert all(labels[f"org.opencontainers.image.{name}"] for name in wanted)


@pytest.mark.parametrize("part", OURS)
def test_image_has_neither_compiler_nor_pip_of_its_own(part: str, archive: Callable[[Image], Archive]) -> None:
    files = list(archive(OURS[part]).files())
    assert "opt/agentqueue/bin/agentqueue" in files
    assert [path for path in files if path.rpartition("/")[2] in TOOLS and "bin/" in path] == []
    assert [path for path in files if path.startswith("opt/agentqueue/") and "/pip/" in path] == []


@pytest.mark.parametrize(
    ("part", "foreign"), [("operator", {"arq", "uvloop"}), ("worker", {"kopf", "kubernetes", "aiohttp"})]
)
def test_bill_of_materials_lists_what_is_installed(
    part: str, foreign: set[str], archive: Callable[[Image], Archive]
) -> None:
    found = archive(OURS[part])
    bill = json.loads(found.read(path_of(part)))
    assert bill["bomFormat"] == "CycloneDX"
    parts = [bill["metadata"]["component"], *bill["components"]]  # what the image is for, and all that it rests on
    listed = {(_normal(one["name"]), one["version"]) for one in parts}
    installed = {_installed(path) for path in found.files() if path.endswith(".dist-info/METADATA") and "opt/" in path}
    assert installed <= listed
    assert foreign.isdisjoint(name for name, _ in listed)


def _installed(path: str) -> tuple[str, str]:
    name, _, version = path.split("/")[-2].removesuffix(".dist-info").partition("-")
    return _normal(name), version


def _normal(name: str) -> str:
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


async def test_users_image_brings_its_handlers_and_packages(all_images: None, kube: Kube) -> None:
    script = "import airportsdata, travel.orchestrator as t; print(t.agent.name)"
    await kube.apply(pod("user", container(TRAVEL.name, script), restartPolicy="Never"))
    await kube.until("pod", "user", lambda found: found["status"]["phase"] == "Succeeded", what="succeeded")
    assert await kube.logs("user") == "orchestrator\n"


@pytest.mark.parametrize("part", OURS)
async def test_images_programs_start_on_a_read_only_root(part: str, all_images: None, kube: Kube) -> None:
    read_only = container(OURS[part].name, f"import agentqueue_{part}.__main__ as m; print('imported')")
    read_only["securityContext"] = read_only["securityContext"] | {"readOnlyRootFilesystem": True}
    await kube.apply(pod("starts", read_only, restartPolicy="Never"))
    await kube.until("pod", "starts", lambda found: found["status"]["phase"] == "Succeeded", what="succeeded")
    assert await kube.logs("starts") == "imported\n"
