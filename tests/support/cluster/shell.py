"""Running commands and waiting, with errors that say what was run, what came of it and what is known."""

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TypeVar

T = TypeVar("T")

SHORT = 2_000
"""Characters of a command's output that an error repeats."""


class ClusterError(RuntimeError):
    """The cluster, an image or a part of it could not be made; the message has the reason and the next step."""


def run(
    *command: str | Path,
    feed: str | None = None,
    source: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
) -> str:
    """Standard output of a command, given `feed` or the open file `source` as its input.

    Raises ClusterError with the end of its standard error when it fails or takes longer than `timeout` seconds.
    """
    line = [str(word) for word in command]
    piped = feed.encode() if feed is not None else None
    stdin = None if feed is not None else source or subprocess.DEVNULL
    try:
        done = subprocess.run(
            line, input=piped, stdin=stdin, capture_output=True, env=env, cwd=cwd, timeout=timeout, check=False
        )
    except FileNotFoundError as error:
        raise ClusterError(f"`{line[0]}` is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{' '.join(line)}` took longer than {timeout:g} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise ClusterError(f"`{' '.join(line)[:SHORT]}` ended with {done.returncode}: {said[-SHORT:]}")
    return done.stdout.decode(errors="replace")


def until(check: Callable[[], T], what: str, *, timeout: float = 30, explain: Callable[[], str] = str) -> T:
    """The first true answer of `check`, asked every 50 ms.

    Raises ClusterError after `timeout` seconds, with what `explain` knows by then.
    """
    deadline = time.monotonic() + timeout
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise ClusterError(f"gave up after {timeout:g} s waiting for {what}{explain()}")
        time.sleep(0.05)
    return answer


def tail(log: Path, lines: int = 30) -> str:
    """The last lines of a log, or that there is none."""
    if not log.exists():
        return f"(no {log})"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
