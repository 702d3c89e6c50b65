"""BullMQ, the peer outside Python: its packages from npm, kept in the user's cache, and one round of it."""

import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("bullmq@6.7.0", "ioredis@6.0.0")
JOBS = 10_000
SCRIPT = Path(__file__).with_name("bullmq.mjs")


def install() -> Path | None:
    """The folder with BullMQ in it, filled on first use; None without Node."""
    if shutil.which("npm") is None:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "agentqueue" / "-".join(PACKAGES)
    if not (folder / "node_modules" / ".package-lock.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        flags = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--silent")
        subprocess.run(["npm", "install", *flags, "--prefix", folder, *PACKAGES], check=True, timeout=300)
    return folder


def one_round(folder: Path, url: str, concurrency: int) -> tuple[float, float]:
    """Jobs per second enqueued and run, in a process of its own."""
    command = ["node", SCRIPT, folder, url, str(JOBS), str(concurrency)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    sent, ran = map(float, out.split())
    return sent, ran
