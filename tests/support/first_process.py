"""A program as process 1 of a PID namespace, as in a container: the kernel drops what it neither handles nor blocks."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.waiting import DEADLINE, until


class FirstProcess:
    """The program, seen from outside its namespace. Its output is kept in a file."""

    def __init__(self, command: Sequence[str], folder: Path, **environment: object) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {"PATH": path, "PYTHONUNBUFFERED": "1", "AGENTQUEUE_LOG_FORMAT": "json", "AGENTQUEUE_PROBE_PORT": "0"}
        as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        self._log = folder / "output.txt"
        with self._log.open("wb") as log:
            self._outside = subprocess.Popen(
                ["unshare", *as_root, "--pid", "--fork", "--kill-child", *command],
                cwd=folder,
                env={**os.environ, **own, **{f"AGENTQUEUE_{name}": str(value) for name, value in environment.items()}},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """Its output up to now."""
        return self._log.read_text()

    @property
    def exit_code(self) -> int | None:
        """None: it runs."""
        return self._outside.poll()

    async def python_has_begun(self) -> None:
        """Wait until the process is Python's: it has just been started, and has no handler yet."""
        await until(lambda: "python" in self._program(), what="Python is process 1")

    def _program(self) -> str:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return os.readlink(f"/proc/{self._pid()}/exe")  # noqa: PTH115  # a path that need not exist here
        return ""

    def _pid(self) -> int:
        children = Path(f"/proc/{self._outside.pid}/task/{self._outside.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def terminate(self) -> None:
        """Send SIGTERM, as the kubelet does: from the namespace outside."""
        os.kill(self._pid(), signal.SIGTERM)

    async def exit(self, *, deadline: float = DEADLINE) -> int:
        """Wait for its end, and return its exit code."""
        await until(lambda: self.exit_code is not None, what=f"the end, after\n{self.output}", deadline=deadline)
        return self._outside.returncode

    def close(self) -> None:
        """End the whole namespace."""
        self._outside.kill()
        self._outside.wait(10)


@contextlib.contextmanager
def first_process(command: Sequence[str], folder: Path, **environment: object) -> Iterator[FirstProcess]:
    """Run the command for a block. Keywords are its variables without `AGENTQUEUE_`."""
    running = FirstProcess(command, folder, **environment)
    try:
        yield running
    finally:
        running.close()
