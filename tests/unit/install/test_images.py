"""The text of the Dockerfiles. tests/e2e/test_images.py builds the images."""

import json
import re
from pathlib import Path

import pytest

from agentqueue_operator.resources.render.console import COMMAND

ROOT = Path(__file__).parents[3]
KEEPS_SIGTERM = ["env", "--block-signal=TERM", "python", "-m"]


def test_every_image_has_its_test() -> None:
    assert {path.parent.name for path in ROOT.glob("*/Dockerfile")} == {"operator", "worker"}


@pytest.mark.parametrize("part", ["operator", "worker"])
def test_an_images_python_starts_with_sigterm_blocked(part: str) -> None:
    entry_points = re.findall(r"^ENTRYPOINT (.*)$", (ROOT / part / "Dockerfile").read_text(), re.MULTILINE)
    assert [json.loads(it) for it in entry_points] == [[*KEEPS_SIGTERM, f"agentqueue_{part}"]]


def test_the_consoles_python_starts_with_sigterm_blocked() -> None:
    assert [*KEEPS_SIGTERM, "agentqueue.console"] == COMMAND


def test_the_users_images_keep_the_entry_point_of_the_worker_image() -> None:
    assert not re.search(r"^(ENTRYPOINT|CMD)", (ROOT / "examples/travel/Dockerfile").read_text(), re.MULTILINE)
