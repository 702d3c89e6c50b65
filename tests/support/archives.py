"""What is in an image's archive (docker-archive), without an engine."""

import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Archive:
    """An image in a file."""

    path: Path

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """How its containers run: User, Entrypoint, Labels, Env, …"""
        found: Mapping[str, Any] = self._image["config"]
        return found

    @cached_property
    def layers(self) -> Mapping[str, int]:
        """Bytes by digest, lowest first."""
        with tarfile.open(self.path) as archive:
            sizes = [archive.getmember(name).size for name in self._names]
        return dict(zip(self._image["rootfs"]["diff_ids"], sizes, strict=True))

    def files(self) -> Iterator[str]:
        """The paths of all files and links, without the leading slash."""
        for _, layer in self._opened():
            with layer:
                yield from (entry.name.removeprefix("./") for entry in layer if not entry.isdir())

    def read(self, path: str) -> bytes:
        """A file's content, from the highest layer that has it.

        Raises:
            FileNotFoundError: none has it.
        """
        found = None
        for _, layer in self._opened():
            with layer:
                for entry in layer:
                    if entry.name.removeprefix("./") == path.removeprefix("/") and entry.isfile():
                        content = layer.extractfile(entry)
                        found = content.read() if content else None
        if found is None:
            raise FileNotFoundError(f"{self.path.name} has no {path}")
        return found

    @cached_property
    def _manifest(self) -> Mapping[str, Any]:
        with tarfile.open(self.path) as archive:
            return dict(json.loads(_content(archive, "manifest.json"))[0])

    @property
    def _names(self) -> list[str]:
        return list(self._manifest["Layers"])

    @cached_property
    def _image(self) -> Mapping[str, Any]:
        with tarfile.open(self.path) as archive:
            return dict(json.loads(_content(archive, self._manifest["Config"])))

    def _opened(self) -> Iterator[tuple[str, tarfile.TarFile]]:
        for name in self._names:
            with _layer(self.path, name) as layer:
                yield name, layer


@contextmanager
def _layer(path: Path, name: str) -> Iterator[tarfile.TarFile]:
    with tarfile.open(path) as archive, tarfile.open(fileobj=archive.extractfile(name)) as layer:
        yield layer


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    found = archive.extractfile(name)
    if found is None:
        raise FileNotFoundError(name)
    return found.read()
