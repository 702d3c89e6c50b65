"""Detection of changed Python files under a folder, for `agentqueue up --watch`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

SKIPPED: Final = frozenset(("__pycache__", "node_modules", "venv"))
"""Names of folders that contain no handlers."""
MAX_FILES: Final = 5_000
"""Number of files after which the search stops. A handlers' folder has dozens; a home folder is too large to search it
twice a second."""


class CodeWatcher:
    """Remembers the times and sizes of the files, and compares them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = self._scan()

    def has_changed(self) -> bool:
        """Return whether a file was changed, added or removed since the last call."""
        known, self._known = self._known, self._scan()
        return known != self._known

    def _scan(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in _sources(self._folder):
            try:
                stat = path.stat()
            except OSError:  # Editors replace files.
                continue
            found[str(path)] = (stat.st_mtime_ns, stat.st_size)
            if len(found) >= MAX_FILES:
                break
        return found


def _sources(folder: Path) -> Iterator[Path]:
    try:
        found = list(folder.iterdir())
    except OSError:  # The folder was just removed, or is not readable.
        return
    for path in found:
        if path.is_dir() and path.name not in SKIPPED and not path.name.startswith("."):
            yield from _sources(path)
        elif path.suffix == ".py":
            yield path
