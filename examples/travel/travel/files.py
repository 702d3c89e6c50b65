"""Files that are whole or absent, whatever is killed when."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4


def data_folder() -> Path:
    """Where clients, outbox and incidents are kept: TRAVEL_DATA, else `travel-data` in the current folder."""
    return Path(os.environ.get("TRAVEL_DATA", "travel-data"))


def write_once(path: Path, content: bytes) -> bool:
    """Write a file unless it is there. False: it was there, and is left as it is."""
    with _beside(path, content) as draft:
        try:
            path.hardlink_to(draft)  # unlike a rename, this fails if the name is taken
        except FileExistsError:
            return False
        return True


def replace(path: Path, content: bytes) -> None:
    """Write a file over what may be there."""
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
    """Hold a lock that all processes on this machine respect; the kernel lets go of it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
