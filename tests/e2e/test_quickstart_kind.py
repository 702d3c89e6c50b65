"""docs/quickstart-kind.md, run as it is written, on the tests' cluster in the place of kind; and `kubectl apply -k`."""

import shlex
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml

from tests.support.cluster.images import OPERATOR, REDIS, WORKER, Image
from tests.support.cluster.kube import Cluster, Kube, is_ready, is_rolled_out
from tests.support.cluster.program import ROOT
from tests.support.cluster.shell import run
from tests.support.installs import TRAVEL, Helm, follow
from tests.support.operator import agent_queue, code
from tests.support.pages import Page
from tools.manifests import NAMESPACE

PAGE, README = Page(ROOT / "docs" / "quickstart-kind.md"), Page(ROOT / "README.md")


def published(name: str, built: Image) -> Image:
    """A built image by the name that people know it by."""
    folder = Path(__file__).parent / "published"
    return Image(f"docker.io/library/{name}", folder / "Dockerfile", folder, (("BUILT", built.name),))


BUILT = {"agentqueue-operator:0.1.0": OPERATOR, "agentqueue-worker:0.1.0": WORKER, "agentqueue-travel:dev": TRAVEL}
"""What the page builds, by the names that it gives them."""
PUBLISHED = [
    published("agentqueue-operator:0.1.0", OPERATOR),
    published("agentqueue-worker:0.1.0", WORKER),
    published("redis:7.4-alpine", REDIS),
]
"""What a node gets by these names; the last one from a registry: here it is Debian's."""
LOCAL = {"docker", "kind", "make"}
"""Programs that this machine has not, or need not: their part is done by the fixtures."""


@pytest.fixture(scope="session")
def published_images(all_images: None, load_image: Callable[[Image], str]) -> None:
    """On every node, as `kind load docker-image` and a registry bring them."""
    for image in PUBLISHED:
        load_image(image)


@pytest.fixture
async def fresh(cluster: Cluster, helm: Helm, system: str) -> AsyncIterator[Kube]:
    """The default namespace of a cluster without AgentQueue, and what the page makes is gone after it."""
    async with Kube(cluster) as kube:
        yield kube
        for name in ("travel", "demo"):
            await kube.delete("agentqueue", name)
        await kube.kubectl("delete", "pvc", "--selector=agentqueue.dev/queue")
        if "agentqueue" in await helm("list", "--short", "--namespace", NAMESPACE):
            await helm("uninstall", "agentqueue", "--namespace", NAMESPACE, "--wait")
        await kube.delete("namespace", NAMESPACE)
        await kube.until_gone("namespace", NAMESPACE, timeout=120)


def recipe(target: str, *variables: str) -> list[list[str]]:
    """The commands that make would run."""
    told = run("make", "--no-print-directory", "--dry-run", target, *variables, cwd=ROOT)
    return [shlex.split(line) for line in told.splitlines()]


def test_make_builds_what_the_tests_build() -> None:
    commands = recipe("kind-images")
    built = {words[words.index("--tag") + 1]: words for words in commands if words[0] == "docker"}
    assert built.keys() == BUILT.keys()
    for name, words in built.items():
        image = BUILT[name]
        context = ROOT / words[-1]
        assert context.resolve() == image.context
        given = words[words.index("--file") + 1] if "--file" in words else f"{words[-1]}/Dockerfile"
        assert (ROOT / given).resolve() == image.dockerfile
    (load,) = [words for words in commands if words[0] == "kind"]
    assert load[:5] == ["kind", "load", "docker-image", "--name", _kind_cluster()]
    assert set(load[5:]) == BUILT.keys()


def test_make_pushes_all_that_it_builds_to_a_registry_of_one_s_own() -> None:
    (push,) = [" ".join(words) for words in recipe("push-images", "REGISTRY=r.example/team") if "push" in words]
    assert all(name in push for name in BUILT)
    assert "docker push r.example/team/$image" in push


def _kind_cluster() -> str:
    return str(yaml.safe_load((ROOT / "tests" / "cluster" / "kind.yaml").read_text())["name"])


def test_readme_s_commands_are_among_the_page_s() -> None:
    ours = {tuple(words) for words in PAGE.commands}
    assert {tuple(words) for words in README.commands if words[0] in {"helm", "kubectl"}} <= ours


@pytest.mark.timeout(900)
async def test_its_commands_work_in_their_order(published_images: None, fresh: Kube) -> None:
    said = {}
    for words in (words for words in PAGE.commands if words[0] not in LOCAL):
        said[" ".join(words)] = await follow(shlex.join(words), fresh.cluster.kubeconfig)
    assert "travel" in said["kubectl get agentqueues"]
    (trip,) = [text for line, text in said.items() if line.startswith("agentqueue submit")]
    assert "Lisbon" in trip
    assert await fresh.list("agentqueue") == []
    assert await fresh.list("pvc", labels="agentqueue.dev/queue=travel") == []


@pytest.mark.timeout(600)
async def test_kustomize_installs_the_same(published_images: None, fresh: Kube) -> None:
    (line,) = [
        text for text in PAGE.path.read_text().split("`") if text.startswith("kubectl apply") and "kustomize" in text
    ]
    await follow(line, fresh.cluster.kubeconfig)
    async with Kube(fresh.cluster, NAMESPACE) as kube:
        await kube.until("deployment", "agentqueue-operator", is_rolled_out, timeout=120)
    await fresh.apply(code(), agent_queue())
    await fresh.until("agentqueue", "demo", is_ready, timeout=120)
    await follow("kubectl delete agentqueue demo", fresh.cluster.kubeconfig)
    await follow("kubectl delete --kustomize manifests/install", fresh.cluster.kubeconfig)
