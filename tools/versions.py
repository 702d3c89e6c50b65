"""Run the library's tests with the lowest and the newest versions of its dependencies. `make test-versions` runs it.

The worker is not tested, because arq limits it to redis-py 5. Each set of versions has its own virtual environment,
which is created again only if pyproject.toml has changed.
"""

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
TOOLS = ("pytest", "pytest-asyncio", "pytest-randomly", "pytest-timeout", "hypothesis", "httpx", "trustme")
TESTS = (
    "tests/unit/agentqueue/client/test_parts.py",
    "tests/unit/agentqueue/store/test_options.py",
    "tests/unit/agentqueue/client/test_status.py",
    "tests/unit/agentqueue/client/test_arguments.py",
    "tests/integration/test_client.py",
    "tests/integration/test_console_api.py",
    "tests/integration/test_sentinel.py",
    "tests/integration/test_tls.py",
)
"""Tests of the code that uses redis-py, pydantic, orjson and Starlette."""
LEFT_OUT = "not valkey and not arqs_own_job"
"""Tests to skip: a client library does not depend on the kind of server, and arq is not installed."""


def main() -> int:
    """Return 0 if the tests pass with both sets of versions."""
    return max(_run(name, resolution) for name, resolution in RESOLUTIONS.items())


def _run(name: str, resolution: str) -> int:
    python = _environment(name, resolution)
    print(f"--- {name} versions: {_versions(python)}", flush=True)
    # The conftest.py of the root loads the cluster's fixtures, whose packages are not installed here.
    command = [str(python), "-m", "pytest", "--quiet", "--confcutdir", "tests", "-p", "no:cacheprovider"]
    return subprocess.run([*command, "-k", LEFT_OUT, *TESTS], cwd=ROOT, check=False).returncode  # noqa: S603


def _environment(name: str, resolution: str) -> Path:
    """Return the Python of the environment, which is created again if pyproject.toml has changed."""
    folder = ROOT / f".venv-{name}"
    python, stamp = folder / "bin" / "python", folder / "made-of"
    wanted = hashlib.sha256(f"{resolution} {_dependencies()} {TOOLS}".encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        _uv("venv", "--clear", "--python", sys.executable, str(folder))
        install = ("pip", "install", "--python", str(python))
        _uv(*install, "--resolution", resolution, "--editable", f"{ROOT}[cli,console,embedded]")
        _uv(*install, "--constraint", str(ROOT / "constraints.txt"), *TOOLS)
        stamp.write_text(wanted)
    return python


def _dependencies() -> object:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"], project["optional-dependencies"], project["requires-python"]


def _uv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", "--quiet", *arguments], cwd=ROOT, check=True)  # noqa: S603


def _versions(python: Path) -> str:
    names = ("redis", "pydantic", "orjson", "starlette", "typer")
    code = (
        f"from importlib.metadata import version; print(*(f'{{name}} {{version(name)}}' for name in {names}), sep=', ')"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
