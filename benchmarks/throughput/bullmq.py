"""BullMQ, the peer outside Python: its packages from npm, kept in the user's cache, and the command of a round."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.cluster.program import cache_folder

PACKAGES = ("bullmq@6.7.0", "ioredis@6.0.0")
JOBS = 10_000
SCRIPT = Path(__file__).with_name("bullmq.mjs")


def install() -> Path | None:
    """The folder with BullMQ in it, filled on first use; None without Node."""
    if shutil.which("npm") is None:
        return None
    folder = cache_folder() / "-".join(PACKAGES)
    if not (folder / "node_modules" / ".package-lock.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        flags = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--silent")
        subprocess.run(["npm", "install", *flags, "--prefix", folder, *PACKAGES], check=True, timeout=300)
    return folder


def side(folder: Path, url: str, concurrency: int) -> Sequence[str]:
    """The process that prints its jobs per second enqueued and run."""
    return ["node", str(SCRIPT), str(folder), url, str(JOBS), str(concurrency)]
