"""Tells when Python files under a folder have changed, for `agentqueue up --watch`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

SKIPPED: Final = frozenset(("__pycache__", "node_modules", "venv"))
MOST_FILES: Final = 5_000
"""A handlers' folder has dozens; somebody's home folder must not be walked twice a second."""


class CodeWatch:
    """Remembers the files' times and sizes; `changed()` compares."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = self._look()

    def changed(self) -> bool:
        """Whether a file has changed, come or gone since the last call."""
        known, self._known = self._known, self._look()
        return known != self._known

    def _look(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in _sources(self._folder):
            try:
                stat = path.stat()
            except OSError:  # an editor replaces files
                continue
            found[str(path)] = (stat.st_mtime_ns, stat.st_size)
            if len(found) >= MOST_FILES:
                break
        return found


def _sources(folder: Path) -> Iterator[Path]:
    try:
        found = list(folder.iterdir())
    except OSError:  # it has just gone, or is not ours to read
        return
    for path in found:
        if path.is_dir() and path.name not in SKIPPED and not path.name.startswith("."):
            yield from _sources(path)
        elif path.suffix == ".py":
            yield path
