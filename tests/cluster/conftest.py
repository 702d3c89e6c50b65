"""What the tests on a real Kubernetes share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster.images import WORKER, Image

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def worker_image(load_image: Callable[[Image], str]) -> str:
    """The name of the worker's image, on every node."""
    return load_image(WORKER)
