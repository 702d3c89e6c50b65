"""Prometheus' own programs, which Debian's package `prometheus` brings."""

import os
import shutil

import pytest

from tests.support.debian import PackagesMissing, ensure_packages


def find_program(name: str) -> str:
    """Return the path of `promtool` or `prometheus`, installed first where that is possible.

    Where it can't be had the test is left out and says why in one line; where CI is set it fails.
    """
    if (found := shutil.which(name)) is not None:
        return found
    try:
        ensure_packages("prometheus")
    except PackagesMissing as error:
        if os.environ.get("CI"):
            pytest.fail(f"no {name}, and in CI nothing is left out: {error}", pytrace=False)
        pytest.skip(f"no {name}: {error}")
    path = shutil.which(name)
    assert path is not None, f"Debian's package prometheus has no {name}"
    return path
