"""Run the library's tests with the lowest and the newest versions of its dependencies. `make test-versions` runs it.

Each set of versions has its own virtual environment, which is created again only if a pyproject.toml has changed.
"""

import hashlib
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
TOOLS = ("pytest", "pytest-asyncio", "pytest-randomly", "pytest-timeout", "hypothesis", "httpx", "trustme")


@dataclass(frozen=True)
class Suite:
    """Tests, and what is installed for them."""

    folder: str
    """First part of the names of its virtual environments."""
    packages: tuple[str, ...]
    """Requirements, whose versions are the lowest or the newest. Those that begin with `.` are installed editable."""
    versions: tuple[str, ...]
    """Packages whose versions are printed."""
    tests: tuple[str, ...]
    left_out: str
    """Tests to skip, as pytest's `-k` takes them."""


LIBRARY = Suite(
    ".venv",
    (".[cli,console,embedded]",),
    ("redis", "pydantic", "orjson", "starlette", "typer"),
    (
        "tests/unit/agentqueue/client/test_parts.py",
        "tests/unit/agentqueue/store/test_options.py",
        "tests/unit/agentqueue/client/test_status.py",
        "tests/unit/agentqueue/client/test_arguments.py",
        "tests/integration/test_client.py",
        "tests/integration/test_console_api.py",
        "tests/integration/test_sentinel.py",
        "tests/integration/test_tls.py",
    ),
    # A client library does not depend on the kind of server, and arq is not installed.
    "not valkey and not arqs_own_job",
)
"""The code that uses redis-py, pydantic, orjson and Starlette. The worker is left out: arq limits it to redis-py 5."""
FRAMEWORKS = Suite(
    ".venv-frameworks",
    (".[embedded,langgraph,openai-agents,pydantic-ai]", "./worker", "pydantic-ai-slim[openai]"),
    ("pydantic-ai-slim", "openai-agents", "langgraph", "openai", "pydantic"),
    (
        "tests/unit/agentqueue/integrations",
        "tests/integration/test_pydantic_ai.py",
        "tests/integration/test_openai_agents.py",
        "tests/integration/test_langgraph.py",
    ),
    "",
)
"""The bridges to agent frameworks, whose interfaces change more often. Their jobs need a worker."""


def main() -> int:
    """Return 0 if the tests pass with both sets of versions."""
    return max(_run(suite, name) for suite in (LIBRARY, FRAMEWORKS) for name in RESOLUTIONS)


def _run(suite: Suite, name: str) -> int:
    python = _environment(suite, name)
    print(f"--- {name} versions: {_versions(python, suite)}", flush=True)
    # The conftest.py of the root loads the cluster's fixtures, whose packages are not installed here.
    command = [str(python), "-m", "pytest", "--quiet", "--confcutdir", "tests", "-p", "no:cacheprovider"]
    return subprocess.run([*command, "-k", suite.left_out, *suite.tests], cwd=ROOT, check=False).returncode  # noqa: S603


def _environment(suite: Suite, name: str) -> Path:
    """Return the Python of the environment, which is created again if what it is made of has changed."""
    folder = ROOT / f"{suite.folder}-{name}"
    python, stamp = folder / "bin" / "python", folder / "made-of"
    wanted = hashlib.sha256(f"{RESOLUTIONS[name]} {suite.packages} {_dependencies()} {TOOLS}".encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        _uv("venv", "--clear", "--python", sys.executable, str(folder))
        install = ("pip", "install", "--python", str(python))
        packages = [word for one in suite.packages for word in (["--editable", one] if one[0] == "." else [one])]
        _uv(*install, "--resolution", RESOLUTIONS[name], *packages)
        _uv(*install, "--constraint", str(ROOT / "constraints.txt"), *TOOLS)
        stamp.write_text(wanted)
    return python


def _dependencies() -> object:
    projects = [tomllib.loads((ROOT / name / "pyproject.toml").read_text())["project"] for name in (".", "worker")]
    return [(one["dependencies"], one.get("optional-dependencies"), one["requires-python"]) for one in projects]


def _uv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", "--quiet", *arguments], cwd=ROOT, check=True)  # noqa: S603


def _versions(python: Path, suite: Suite) -> str:
    code = (
        "from importlib.metadata import version; "
        f"print(*(f'{{name}} {{version(name)}}' for name in {suite.versions}), sep=', ')"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
