"""Every block of the pages is run by some test or says why not; and what their text names is there."""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml
from starlette.routing import Match

from agentqueue import Context
from agentqueue.cli.main import build_command, run
from agentqueue.console import api
from agentqueue.model.new_job import OPTION_NAMES
from agentqueue.spec.crd import crd
from tests.support.installs import local_images
from tests.support.pages import Page

ROOT = Path(__file__).parents[2]
SOURCES = ("src", "operator/src", "worker/src", "tools")
PATHS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "frameworks").glob("*.md")),
]
"""Pages that are checked. `reference/` is generated, and `decisions/` describe the past."""
PAGES = {path.name: Page(path) for path in PATHS}

LAPTOP, KIND = "tests/e2e/test_quickstart_laptop.py", "tests/e2e/test_quickstart_kind.py"
ARQ, DOCS = "tests/integration/test_arq_docs.py", "tests/integration/test_docs.py"
FRAMEWORKS = "tests/integration/test_frameworks.py"
STREAMS = "tests/integration/test_streams_docs.py"
OPERATIONS = "tests/e2e/test_operations.py"
HEALTH = "tests/unit/agentqueue_operator/controller/status/test_health.py"
EXPLAIN = "tests/unit/agentqueue_operator/autoscaling/test_explanation.py"

GET_POD = "POD=$(kubectl get pod --selector agentqueue.dev/queue=travel,agentqueue.dev/component=redis --output name)\n"
BLOCKS: Mapping[str, Mapping[str, str]] = {
    "README.md": {
        ". .venv/bin/activate": LAPTOP,
        "# agents.py": LAPTOP,
        "# agentqueue.yaml": LAPTOP,
        "agentqueue up agentqueue.yaml": LAPTOP,
        "# enqueue.py": LAPTOP,
        "python enqueue.py": LAPTOP,
        "helm install agentqueue": KIND,
    },
    "migrate-from-arq.md": {
        "# trips.py": ARQ,
        "agentqueue worker trips.WorkerSettings": ARQ,
        "# own_worker.py": ARQ,
        "python own_worker.py": ARQ,
        "# enqueue.py": ARQ,
        "python enqueue.py": ARQ,
        "agentqueue submit arq:queue": ARQ,
        "# agentqueue.yaml": ARQ,
        "agentqueue validate": ARQ,
    },
    "migrate-from-bullmq.md": {"const answer = await fetch(": DOCS},
    "operations.md": {
        "helm upgrade agentqueue charts/agentqueue --namespace agentqueue-system --wait": OPERATIONS,
        "helm upgrade agentqueue charts/agentqueue --namespace agentqueue-system --reset": OPERATIONS,
        "# argocd-cm.yaml": HEALTH,
        "kubectl get aq travel --output jsonpath": OPERATIONS,
        "kubectl drain": OPERATIONS,
        f'{GET_POD}kubectl exec "$POD" -- tar': OPERATIONS,
        f'{GET_POD}kubectl exec "$POD" -- redis-cli': OPERATIONS,
        "kubectl create secret": OPERATIONS,
    },
    "quickstart-kind.md": {
        "make kind-up": KIND,
        "helm install": KIND,
        "kubectl apply": KIND,
        "agentqueue submit": KIND,
        "kubectl delete": KIND,
    },
    "quickstart-laptop.md": {
        "# agents.py": LAPTOP,
        "# agentqueue.yaml": LAPTOP,
        "agentqueue validate": LAPTOP,
        "agentqueue submit greeter say-hello '\"world\"'": LAPTOP,
        "agentqueue explain": LAPTOP,
        "agentqueue submit greeter say-hello '\"\"'": LAPTOP,
        "# enqueue.py": LAPTOP,
        "python enqueue.py": LAPTOP,
    },
    "streams.md": {
        "# writer.py": STREAMS,
        "<!-- page.html -->": STREAMS,
        "# web.py": STREAMS,
        "agentqueue stream-token": STREAMS,
        "# test_writer.py": STREAMS,
        "pytest test_writer.py": STREAMS,
    },
    "security.md": {"agentqueue acl": "tests/integration/test_acl.py"},
    "scaling.md": {"$ agentqueue explain": EXPLAIN},
    "durable-agents.md": {
        "# shop.py": DOCS,
        "# buyer.py": DOCS,
        "# agentqueue.yaml": DOCS,
        "agentqueue up agentqueue.yaml": DOCS,
        "agentqueue check": DOCS,
        "# release.py": DOCS,
        "# test_buyer.py": DOCS,
        "pytest test_buyer.py": DOCS,
    },
    "schedules.md": {
        "# reports.py": DOCS,
        "# agentqueue.yaml": DOCS,
        "agentqueue schedules list reports": DOCS,
        "# test_reports.py": DOCS,
        "pytest test_reports.py": DOCS,
    },
    "pydantic-ai.md": {"# planner.py": FRAMEWORKS, "# buyer.py": FRAMEWORKS},
    "openai-agents.md": {"# planner.py": FRAMEWORKS},
    "langgraph.md": {"# planner.py": FRAMEWORKS, "# approval.py": FRAMEWORKS},
    "provider-limits.md": {"# digest.py": DOCS, "# test_digest.py": DOCS, "pytest test_digest.py": DOCS},
    "write-an-agent.md": {
        "# search.py": DOCS,
        "# producer.py": DOCS,
        "# test_search.py": DOCS,
        "pytest test_search.py": DOCS,
        "ARG WORKER": DOCS,
    },
}
"""First words of each block, in the order of its page, and the test that runs it."""

NOT_RUN: Mapping[str, Mapping[str, str]] = {
    "README.md": {
        " your program": "a drawing",
        "make demo ": "the demo on the 40 requests is examples/travel/tests/test_whole.py",
    },
    "benchmarks.md": {"make bench ": "takes minutes to hours; tests/integration/test_benchmarks.py runs the cases"},
    "pydantic-ai.md": {"pip install": "installs from the registry; pyproject.toml has the extra"},
    "openai-agents.md": {"pip install": "installs from the registry; pyproject.toml has the extra"},
    "langgraph.md": {"pip install": "installs from the registry; pyproject.toml has the extra"},
    "index.md": {" your program": "a drawing"},
    "quickstart-laptop.md": {"make setup\n. .venv/bin/activate\n": "makes what the tests run in"},
    "develop.md": {
        "make kind-up\ntilt up\n": "needs Docker and Tilt",
        "helm install agentqueue": "tests/e2e/test_install.py does it; the values are compared below",
        "make docs\n": "part of `make check`",
    },
}
"""First words of blocks that no test runs, and the reason."""


def named() -> Iterator[tuple[str, str]]:
    """The pages' code in the text, and their lines of shell."""
    for name, page in PAGES.items():
        yield from ((name, text) for text in (*page.inline, *(" ".join(words) for words in page.commands)))


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_listed_with_a_reason(page: str) -> None:
    text = PAGES[page].path.read_text()
    assert text.count("```") == 2 * len(PAGES[page].blocks), "a fence that is not at a line's beginning"
    expected = {**BLOCKS.get(page, {}), **NOT_RUN.get(page, {})}
    blocks = [block for _, block in PAGES[page].blocks]
    assert len(blocks) == len(expected), "one of them is not listed above"
    for beginning in expected:
        assert sum(block.startswith(beginning) for block in blocks) == 1, beginning


def test_developers_install_the_local_images_as_the_tests_do() -> None:
    (words,) = [words for words in PAGES["develop.md"].commands_of("helm") if "install" in words]
    (file,) = [word for before, word in pairwise(words) if before == "--values"]
    given = {f"{name.removeprefix('.')}={value}" for name, value in _leaves(yaml.safe_load((ROOT / file).read_text()))}
    assert given == {word for word in local_images() if word != "--set"}


@pytest.mark.parametrize("page", BLOCKS)
def test_the_tests_that_run_blocks_know_the_page(page: str) -> None:
    for test in {*BLOCKS[page].values()}:
        assert page in (ROOT / test).read_text()


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (name, text)
        for name, page in PAGES.items()
        for kind, text in page.blocks
        if kind == "yaml" and "kind: ConfigMap" not in text
    ],
)
def test_every_resource_is_valid(page: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "agentqueue.yaml").write_text(text)
    assert run(["validate", str(tmp_path / "agentqueue.yaml")]) == 0


def test_every_command_has_the_options_that_it_is_given() -> None:
    app = build_command()
    lines = [text.split() for _, text in named() if text.startswith("agentqueue ")]
    assert len(lines) > 20
    for program, *words in lines:
        command: Any = app
        options = {option for parameter in app.params for option in parameter.opts} | {"--help"}
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            command = command.commands[words.pop(0)]
            options |= {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if re.match("--?[a-z]", word)} <= options, (program, words)


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [text.removeprefix("make ").split() for _, text in named() if text.startswith("make ")]
    asked = {word for words in lines for word in words if "=" not in word}
    assert len(asked) > 10
    assert asked <= targets


def test_every_request_has_a_route() -> None:
    requests = [text.split() for _, text in named() if re.match("(GET|POST|DELETE) /api", text)]
    assert requests
    for method, path in requests:
        scope = {"type": "http", "path": path, "method": method}
        assert any(route.matches(scope)[0] is Match.FULL for route in api.routes()), (method, path)


def test_every_attribute_of_ctx_is_there() -> None:
    names = {match[1] for page, text in named() if (match := re.search(r"\bctx\.(\w+)", text))}
    assert len(names) > 5
    assert {name for name in names if not hasattr(Context, name)} == set()


def test_every_keyword_is_one_of_enqueue_s() -> None:
    keywords = {text.removesuffix("=") for _, text in named() if re.fullmatch(r"\w+=", text)}
    assert keywords
    assert keywords <= OPTION_NAMES


def test_every_dotted_name_is_a_field_of_the_resource_or_of_the_chart_or_python_s_or_a_file() -> None:
    (version,) = crd()["spec"]["versions"]
    values = yaml.safe_load((ROOT / "charts" / "agentqueue" / "values.yaml").read_text())
    fields = {*_fields(version["schema"]["openAPIV3Schema"]), *_values(values)}
    names = {text for _, text in named() if re.fullmatch(r"[a-z]\w*(\.[a-z]\w*)+(\[\])?(\.\w+)*", text)}
    files = {path.name for folder in SOURCES for path in (ROOT / folder).rglob("*.py")} | {"pyproject.toml"}
    ours = {name for name in names if not name.startswith("ctx.")} - files
    assert len(ours) > 10
    assert {name for name in ours if not _ends_one(name, fields) and not _is_python(name)} == set()


def _fields(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        below = f"{path}.{name}"
        yield below
        if "additionalProperties" in field:
            yield f"{below}.*"
        yield from _fields(field.get("items", field), below)


def _leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        yield from _leaves(value, f"{path}.{name}") if isinstance(value, dict) else ((f"{path}.{name}", value),)


def test_the_images_come_before_what_needs_them() -> None:
    """The order of a page is the order of its steps."""
    for page in ("README.md", "quickstart-kind.md"):
        text = PAGES[page].path.read_text()
        assert text.index("make kind-up kind-images") < text.index("helm install agentqueue")
        assert text.index("helm install agentqueue") < text.index("kubectl apply -f manifests/samples")
        for way in ("make cluster-up images", "make push-images REGISTRY=", "manifests/local-images.yaml"):
            assert way in text


def _values(values: Any, path: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{path}.{name}"
        if isinstance(value, dict):
            yield from _values(value, f"{path}.{name}")


def _ends_one(name: str, fields: set[str]) -> bool:
    ends = {"." + name.replace("[]", ""), "." + name.rpartition(".")[0] + ".*"}
    return any(field.endswith(end) for field in fields for end in ends)


def _is_python(name: str) -> bool:
    try:
        resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return False
    return True
