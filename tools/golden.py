"""What `render` makes of the samples and of tests/golden/resources: tests/golden/render/."""

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
"""Of no version: a golden file changes only when rendering does."""


def rendered(source: Path) -> str:
    """The manifests of a file's AgentQueues."""
    queues = map(resolve, load_file(source).queues)
    return as_yaml(it for queue in queues for it in offline_manifests(queue, None, IMAGES))


def golden_sources() -> list[Path]:
    """The files with AgentQueues."""
    files = (path for folder in SOURCES for path in sorted((ROOT / folder).glob("*.yaml")))
    return [path for path in files if load_file(path).queues]


def golden_files() -> Mapping[str, Callable[[], str]]:
    """The files, and what makes their text."""
    return {f"tests/golden/render/{source.name}": partial(rendered, source) for source in golden_sources()}
