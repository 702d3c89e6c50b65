"""The note that a running `agentqueue up` leaves in its folder, so that other commands there find its server."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agentqueue.local.server import Process, private_folder, write_private
from agentqueue.service.environment import REDIS_URL

FOLDER: Final = ".agentqueue"
FILE: Final = "up.json"


@dataclass(frozen=True, slots=True)
class UpState:
    """`{"connection": {…}, "pid": …, "start": …}`: the server, and the `up` that uses it."""

    connection: Mapping[str, str] = field(repr=False)
    """The variables that lead to the server (`agentqueue.service.environment.CONNECTION`), as its workers have them."""
    process: Process


def write_up_state(folder: Path, connection: Mapping[str, str], *, pid: int) -> Path:
    """Note under `folder`/.agentqueue that the `up` with this pid runs; readable by its owner only."""
    path = private_folder(folder / FOLDER) / FILE
    process = Process.of(pid)
    write_private(path, json.dumps({"connection": dict(connection), "pid": process.pid, "start": process.start}))
    return path


def remove_up_state(folder: Path) -> None:
    """Take the note back."""
    (folder / FOLDER / FILE).unlink(missing_ok=True)


def read_up_state(folder: Path) -> UpState | None:
    """The note in this very folder; None: there is none, it can't be read, or that `up` does not run any more."""
    try:
        note = json.loads((folder / FOLDER / FILE).read_text())
        connection = {str(name): str(value) for name, value in note["connection"].items()}
        connection[REDIS_URL]  # the least that a note says
        state = UpState(connection, Process(int(note["pid"]), str(note.get("start", ""))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return state if state.process.is_alive else None


def find_up_state(folder: Path) -> UpState | None:
    """The note of an `up` that runs for this folder or the nearest one above it."""
    absolute = folder.absolute()
    found = (read_up_state(place) for place in (absolute, *absolute.parents))
    return next((state for state in found if state is not None), None)
