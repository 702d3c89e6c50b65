"""Atomic file operations: a file is complete or absent, even if a process is killed."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4


def data_folder() -> Path:
    """Return the folder for clients, outbox and incidents: TRAVEL_DATA, else `travel-data` in the current folder."""
    return Path(os.environ.get("TRAVEL_DATA", "travel-data"))


def write_once(path: Path, content: bytes) -> bool:
    """Write a file if it does not exist. Return False if it exists; it is then unchanged."""
    with _beside(path, content) as draft:
        try:
            path.hardlink_to(draft)  # Unlike a rename, this fails if the file exists.
        except FileExistsError:
            return False
        return True


def replace(path: Path, content: bytes) -> None:
    """Write a file, and replace an existing one."""
    with _beside(path, content) as draft:
        draft.replace(path)


@contextlib.contextmanager
def _beside(path: Path, content: bytes) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock among the processes of this machine. The kernel releases it if the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
