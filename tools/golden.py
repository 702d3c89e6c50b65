"""Generate tests/golden/render: the manifests of the samples and of tests/golden/resources."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from agentqueue.spec import load_file, resolve
from agentqueue_operator.resources.printing import as_yaml, offline_manifests
from agentqueue_operator.resources.render import Images

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = ("manifests/samples", "tests/golden/resources")
IMAGES: Final = Images("default-worker:1", "default-redis:1", "default-console:1")
"""Images without a version, so that a golden file changes only if rendering changes."""


def rendered(source: Path) -> str:
    """Return the manifests of a file's AgentQueues as YAML."""
    queues = map(resolve, load_file(source).queues)
    return as_yaml(it for queue in queues for it in offline_manifests(queue, None, IMAGES))


def golden_sources() -> list[Path]:
    """Return the files that contain AgentQueues."""
    files = (path for folder in SOURCES for path in sorted((ROOT / folder).glob("*.yaml")))
    return [path for path in files if load_file(path).queues]


def golden_files() -> Mapping[str, Callable[[], str]]:
    """Return the golden files and the functions that render them."""
    return {f"tests/golden/render/{source.name}": partial(rendered, source) for source in golden_sources()}
