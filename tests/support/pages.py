"""Pages of the documentation, so that tests run what they show."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"# ([\w./-]+\.\w+)\n")


@dataclass(frozen=True)
class Page:
    """Markdown with fenced blocks."""

    path: Path

    @cached_property
    def blocks(self) -> Sequence[tuple[str, str]]:
        """Language and text of each."""
        return BLOCK.findall(self.path.read_text())

    @cached_property
    def files(self) -> Mapping[str, str]:
        """Blocks whose first line is a comment with a file's name."""
        named = ((FILE.match(text), text) for _, text in self.blocks)
        return {match[1]: text for match, text in named if match}

    @cached_property
    def inline(self) -> Sequence[str]:
        """Code within the text."""
        return INLINE.findall(BLOCK.sub("", self.path.read_text()))

    def write(self, folder: Path) -> None:
        """Its files, into a folder."""
        for name, text in self.files.items():
            (folder / name).write_text(text)

    @cached_property
    def commands(self) -> Sequence[Sequence[str]]:
        """The words of each line of shell."""
        lines = [line for language, text in self.blocks if language == "sh" for line in text.splitlines()]
        return [words for line in lines if (words := shlex.split(line, comments=True))]

    def commands_of(self, program: str) -> Sequence[Sequence[str]]:
        """Those that run a program."""
        return [words for words in self.commands if words[0] == program]
