"""The state file of a running `agentqueue up`, by which other commands in its folder find its server."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agentqueue.local.server import Process, private_folder, write_private
from agentqueue.service.environment import REDIS_URL

FOLDER: Final = ".agentqueue"
"""Name of the folder for local files of AgentQueue. Git ignores its content."""
FILE: Final = "up.json"
"""Name of the state file in it."""


@dataclass(frozen=True, slots=True)
class UpState:
    """The server of a running `up`, and its process. The file is `{"connection": {…}, "pid": …, "start": …}`."""

    connection: Mapping[str, str] = field(repr=False)
    """Variables of the connection (`agentqueue.service.environment.CONNECTION`), as its workers get them."""
    process: Process


def write_up_state(folder: Path, connection: Mapping[str, str], *, pid: int) -> Path:
    """Write the state file of an `up` to `folder`/.agentqueue, readable by its owner only.

    Args:
        folder: The folder of the `up`.
        connection: The variables of the connection to its server.
        pid: The process ID of the `up`.

    Returns:
        The path of the file.
    """
    path = private_folder(folder / FOLDER) / FILE
    process = Process.of(pid)
    write_private(path, json.dumps({"connection": dict(connection), "pid": process.pid, "start": process.start}))
    return path


def remove_up_state(folder: Path) -> None:
    """Remove the state file. Does nothing if it does not exist."""
    (folder / FOLDER / FILE).unlink(missing_ok=True)


def read_up_state(folder: Path) -> UpState | None:
    """Return the state in this folder; None if it is missing or not readable, or if that `up` does not run any more."""
    try:
        content = json.loads((folder / FOLDER / FILE).read_text())
        connection = {str(name): str(value) for name, value in content["connection"].items()}
        connection[REDIS_URL]  # Raises KeyError if the file is not valid.
        state = UpState(connection, Process(int(content["pid"]), str(content.get("start", ""))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return state if state.process.is_alive else None


def find_up_state(folder: Path) -> UpState | None:
    """Return the state of a running `up` for this folder, or for the nearest folder above it; None if there is none."""
    absolute = folder.absolute()
    found = (read_up_state(each) for each in (absolute, *absolute.parents))
    return next((state for state in found if state is not None), None)
