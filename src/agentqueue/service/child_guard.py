"""Ends a child process when this process is gone, however it ended: kill -9 included.

The kernel's own PR_SET_PDEATHSIG exists on Linux alone, goes by the thread that started the child, and needs code in
it. Here a shell waits at the end of a pipe whose other end only this process holds; the kernel closes that at its end.
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
"""Waits for the pipe's end, then kills the process if it is still the one that was meant (proc(5): field 22)."""
_open: "weakref.WeakSet[ChildGuard]" = weakref.WeakSet()


class ChildGuard:
    """Watches over one child process from now on, until `stop`.

    Args:
        pid: the child.
        start: its start time, as `agentqueue.local.server.start_time` gives it: no later process of that pid is killed.
        folder: what is removed with it.
    """

    def __init__(self, pid: int, start: str, folder: Path | None = None) -> None:
        reader, self._writer = os.pipe()
        try:
            # A session of its own: Ctrl-C on the terminal, or a kill of the whole group, must not end it.
            self._process = subprocess.Popen(  # noqa: S603  # the system's shell, and numbers
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
        _open.add(self)

    @property
    def pid(self) -> int:
        """The watching process."""
        return self._process.pid

    def stop(self) -> None:
        """End the watch; nothing is killed."""
        _open.discard(self)
        self._process.kill()
        self._process.wait()
        self.let_go()

    def let_go(self) -> None:
        """Close the pipe. In a forked child this leaves the watch to the parent."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1


def _let_go_of_all() -> None:
    """A fork has copied the pipes: the child must not keep the parent's children alive."""
    for guard in list(_open):
        guard.let_go()
    _open.clear()


os.register_at_fork(after_in_child=_let_go_of_all)
