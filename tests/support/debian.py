"""Debian packages that tests need, installed where that is possible and named where it is not."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.cluster.program import only_one

POLICY = Path("/usr/sbin/policy-rc.d")


class PackagesMissing(RuntimeError):
    """Packages that are not here and can't be installed; the message is one line that says what to do."""


def ensure_packages(*packages: str) -> None:
    """Install those of the Debian packages that are missing; cheap when none is.

    Only one process installs at a time: test processes that run side by side need the same packages. Raises
    PackagesMissing without root, on a machine without apt-get, or when apt-get fails.
    """
    if _missing(packages):
        with only_one("packages"):
            _install(packages)


def _install(packages: tuple[str, ...]) -> None:
    missing = _missing(packages)
    if not missing:
        return
    advice = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        raise PackagesMissing(f"missing: {' '.join(missing)}; this machine has no apt-get, on Debian it is `{advice}`")
    if os.geteuid() != 0:
        raise PackagesMissing(f"missing: {' '.join(missing)}; run as root: `{advice}`")
    _update()
    with _no_services_started():
        _apt_get("install", "--yes", "--no-install-recommends", *missing)


def _missing(packages: tuple[str, ...]) -> list[str]:
    if shutil.which("dpkg-query") is None:
        return list(packages)
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages]
    listed = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    installed = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


@cache
def _update() -> None:
    _apt_get("update")


def _apt_get(*arguments: str) -> None:
    command = ["apt-get", "--quiet", "--quiet", "--option", "DPkg::Lock::Timeout=120", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode != 0:
        raise PackagesMissing(f"`{' '.join(command)}` failed: {result.stderr.strip()[-500:]}")


@contextlib.contextmanager
def _no_services_started() -> Iterator[None]:
    """Debian starts a service as it installs it; a test needs the program, never a Redis on the machine's own port."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
