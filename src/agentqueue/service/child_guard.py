"""Ends a child process when this process is gone, even after a kill -9.

Linux has PR_SET_PDEATHSIG for this. But other systems lack it, it depends on the thread that started the child, and it
needs code in the child. Here, a shell reads from a pipe whose other end only this process has. The kernel closes the
pipe when this process ends, and the shell then kills the child.
"""

import os
import subprocess
import weakref
from pathlib import Path
from typing import Final

_SCRIPT: Final = r"""
while read -r _; do :; done
pid=$1 start=$2 folder=$3
if [ -d /proc/self ]; then
  stat=
  [ -r "/proc/$pid/stat" ] && read -r stat <"/proc/$pid/stat"
  set -- ${stat##*) }
  now=${20}
else
  now=$(/bin/ps -o lstart= -p "$pid")
fi
[ "$now" = "$start" ] && kill -9 "$pid"
[ -z "$folder" ] || rm -rf "$folder"
"""
"""Waits for the end of the pipe, then kills the process if its start time is the expected one (proc(5), field 22)."""
_guards: "weakref.WeakSet[ChildGuard]" = weakref.WeakSet()


class ChildGuard:
    """Guards one child process, from its creation to `stop`.

    Args:
        pid: The process ID of the child.
        start: Its start time from `agentqueue.local.server.start_time`. A later process with this ID is not killed.
        folder: A folder that is removed together with the child.
    """

    def __init__(self, pid: int, start: str, folder: Path | None = None) -> None:
        reader, self._writer = os.pipe()
        try:
            # In its own session, so that neither Ctrl-C on the terminal nor a kill of the process group ends it.
            self._process = subprocess.Popen(  # noqa: S603  # the system's shell; the arguments are numbers and a folder
                ["/bin/sh", "-c", _SCRIPT, "guard", str(pid), start, str(folder or "")],
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._writer)
            raise
        finally:
            os.close(reader)
        _guards.add(self)

    @property
    def pid(self) -> int:
        """Process ID of the guarding shell."""
        return self._process.pid

    def stop(self) -> None:
        """End the guard without killing the child."""
        _guards.discard(self)
        self._process.kill()
        self._process.wait()
        self.close_pipe()

    def close_pipe(self) -> None:
        """Close this process's end of the pipe. In a forked child, this leaves the guard to the parent."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1


def _close_all_pipes() -> None:
    """Close the pipes that a fork has copied, so that the forked child does not keep the parent's children alive."""
    for guard in list(_guards):
        guard.close_pipe()
    _guards.clear()


os.register_at_fork(after_in_child=_close_all_pipes)
