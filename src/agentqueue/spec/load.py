"""Load resources from YAML files and report every problem with its line."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agentqueue.errors import AgentQueueError, InvalidSpec, NotFound
from agentqueue.model.json_input import MAX_INT, MIN_INT
from agentqueue.spec.check import check
from agentqueue.spec.explain import show
from agentqueue.spec.problems import InvalidResource, Path, Problem
from agentqueue.spec.resource import API_VERSION, GROUP, KIND, AgentQueue

if TYPE_CHECKING:
    from pathlib import Path as FilePath

    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

MAX_BYTES = 3 * 1024 * 1024
"""Maximum size of a file, in bytes: the API server's limit for a request."""
MAX_NODES = 200_000
"""Maximum number of values in a document with aliases expanded, since nested aliases can grow exponentially."""
MAX_DEPTH = 64
"""Maximum depth of a document, more than any resource needs."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The documents of a file."""

    queues: tuple[AgentQueue, ...]
    others: tuple[Mapping[str, Any], ...]
    """Documents of other kinds, unchanged."""
    source: str = "<text>"

    def one(self) -> AgentQueue:
        """Return the only AgentQueue of the file.

        Raises:
            InvalidResource: the file has none, or more than one.
        """
        queue, *more = self.some()
        if more:
            names = ", ".join(queue.metadata.name for queue in self.queues)
            wrong = f"has {len(self.queues)} AgentQueues ({names}): keep one per file"
            raise InvalidResource([Problem((), wrong, self.source)])
        return queue

    def some(self) -> tuple[AgentQueue, ...]:
        """Return the AgentQueues of the file, at least one.

        Raises:
            InvalidResource: the file has none.
        """
        if self.queues:
            return self.queues
        kinds = ", ".join(sorted({str(other["kind"]) for other in self.others})) or "nothing"
        wrong = f"has no AgentQueue (found: {kinds}); write apiVersion: {API_VERSION} and kind: {KIND}"
        raise InvalidResource([Problem((), wrong, self.source)])

    def by_name(self) -> dict[str, dict[str, Any]]:
        """Return each AgentQueue of the file as JSON, by name."""
        return {q.metadata.name: q.model_dump(mode="json", by_alias=True, exclude_none=True) for q in self.queues}

    def secret(self, name: str) -> dict[str, str] | None:
        """Return the decoded data of a Secret in the file. None if the file does not have it.

        Raises:
            InvalidSpec: its data is not base64-encoded text.
        """
        found = self._named("Secret", name)
        if found is None:
            return None
        data = {}
        for key, value in (found.get("data") or {}).items():
            try:
                data[key] = base64.b64decode(str(value), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                where = f"{self.source}: Secret {name}: data.{key}"
                raise InvalidSpec(f"{where} is not base64-encoded text: write plain text under stringData") from None
        return data | {key: str(value) for key, value in (found.get("stringData") or {}).items()}

    def config_map(self, name: str) -> dict[str, str] | None:
        """Return the data of a ConfigMap in the file. None if the file does not have it."""
        found = self._named("ConfigMap", name)
        return None if found is None else {key: str(value) for key, value in (found.get("data") or {}).items()}

    def _named(self, kind: str, name: str) -> Mapping[str, Any] | None:
        matches = (o for o in self.others if o["kind"] == kind and (o.get("metadata") or {}).get("name") == name)
        return next(matches, None)


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document as plain JSON values, with the line of each path."""

    data: Any
    lines: Mapping[Path, int]
    problems: tuple[Problem, ...] = ()

    def line(self, path: Path) -> int | None:
        """Return the line of a path, or of its nearest parent."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def load_file(path: FilePath, old: Loaded | None = None) -> Loaded:
    """Load the resources of a file. See `load`.

    Raises:
        NotFound: the file does not exist.
        InvalidSpec: the file is not readable or not UTF-8 text.
        InvalidResource: a document is invalid.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{path}: can't be read as text: {error}") from error
    return load(text, str(path), old)


def load(text: str, source: str = "<text>", old: Loaded | None = None) -> Loaded:
    """Load the resources of a YAML text and check them as the API server does.

    Args:
        text: the YAML text.
        source: name of the file, for messages.
        old: the resources that these replace, to check the changes too.

    Raises:
        InvalidResource: it has all problems of all documents.
    """
    queues: list[AgentQueue] = []
    others: list[Mapping[str, Any]] = []
    problems: list[Problem] = []
    before = old.by_name() if old else {}
    for document in read(text, source):
        wrong = [*document.problems, *_problems(document.data, before)]
        problems += [replace(p, source=source, line=document.line(p.path)) for p in wrong]
        if not wrong and document.data["kind"] == KIND:
            queues.append(AgentQueue.model_validate(document.data))
        elif not wrong:
            others.append(document.data)
    if problems:
        raise InvalidResource(sorted(problems, key=lambda problem: problem.line or 0))
    return Loaded(tuple(queues), tuple(others), source)


def _problems(data: Any, before: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    if not isinstance(data, Mapping):
        return [Problem((), f"a document must be an object with apiVersion and kind, is {show(data)}")]
    kind, version = data.get("kind"), data.get("apiVersion")
    if kind == KIND or str(version).startswith(f"{GROUP}/"):
        metadata = data.get("metadata")
        return check(data, before.get(str(metadata.get("name"))) if isinstance(metadata, Mapping) else None)
    if isinstance(kind, str) and isinstance(version, str):
        return []
    return [
        Problem((), f"apiVersion and kind are required; for an AgentQueue: apiVersion: {API_VERSION}, kind: {KIND}")
    ]


def read(text: str, source: str = "<text>") -> Iterator[Document]:
    """Yield the documents of a YAML text, except empty ones.

    Raises:
        InvalidResource: the text is not YAML, or too large or deep.
    """
    if len(text) > MAX_BYTES:
        raise InvalidResource([Problem((), f"larger than {MAX_BYTES // 1024 // 1024} MiB", source)])
    yaml, malformed = _yaml()
    try:
        for node in yaml.load_all(text):
            if node is not None:
                reader = _Reader()
                data = reader.plain(node, ())
                yield Document(data, reader.lines, tuple(reader.problems))
    except malformed as error:
        raise InvalidResource([_syntax(error, source)]) from None
    except RecursionError:
        raise InvalidResource(
            [Problem((), f"nested deeper than {MAX_DEPTH} or with too many aliases", source)]
        ) from None


def _yaml() -> tuple[YAML, type[YAMLError]]:
    """Return a parser and its exception. It reads YAML 1.1 like kubectl (`on` is true), but dates stay text."""
    try:
        from ruamel.yaml import YAML  # noqa: PLC0415 (slow to import, and an extra)
        from ruamel.yaml.constructor import RoundTripConstructor  # noqa: PLC0415
        from ruamel.yaml.error import YAMLError  # noqa: PLC0415
    except ImportError:
        raise AgentQueueError("YAML files need ruamel.yaml: pip install 'agentqueue[cli]'") from None

    class Constructor(RoundTripConstructor):
        pass

    Constructor.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)
    yaml = YAML(typ="rt", pure=True)
    yaml.version = (1, 1)
    yaml.Constructor = Constructor
    return yaml, YAMLError


def _syntax(error: YAMLError, source: str) -> Problem:
    """Return the problem of a syntax error. A forbidden character has no line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    message = str(getattr(error, "problem", None) or error).splitlines()[0]
    hint = ": indent with spaces, not tabs" if "\\t" in message else ""
    return Problem((), f"not YAML: {message}{hint}", source, mark.line + 1 if mark else None)


@dataclass(slots=True)
class _Reader:
    """Converts ruamel's values to plain ones and records their lines."""

    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0

    def plain(self, node: Any, path: Path) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise RecursionError
        if isinstance(node, Mapping):
            return self._object(node, path)
        if isinstance(node, list):
            return self._list(node, path)
        return self._scalar(node, path)

    def _object(self, node: Any, path: Path) -> dict[str, Any]:
        self.lines.setdefault(path, node.lc.line + 1)
        result = {}
        for key, value in node.items():
            name = str(key).lower() if isinstance(key, bool) else str(key)
            if name in result:
                self.problems.append(Problem((*path, name), "duplicate key, once with quotes; remove one"))
            if key in (node.lc.data or ()):
                self.lines[*path, name] = node.lc.key(key)[0] + 1
            result[name] = self.plain(value, (*path, name))
        return result

    def _list(self, node: Any, path: Path) -> list[Any]:
        self.lines.setdefault(path, node.lc.line + 1)
        for index in node.lc.data or ():
            self.lines[*path, index] = node.lc.item(index)[0] + 1
        return [self.plain(value, (*path, index)) for index, value in enumerate(node)]

    def _scalar(self, node: Any, path: Path) -> Any:
        if isinstance(node, int) and not MIN_INT <= node <= MAX_INT:
            self.problems.append(Problem(path, "an integer over 64 bits would be rounded; write it in quotes"))
            return None
        for kind in (bool, int, str):
            if isinstance(node, kind):
                return kind(node)
        if isinstance(node, float) and math.isfinite(node):
            return float(node)
        if node is not None:
            self.problems.append(Problem(path, f"JSON can't represent {node}; write it in quotes"))
        return None
