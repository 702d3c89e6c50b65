"""Copy the bills of materials (CycloneDX) out of the images to dist/. `make sbom` runs it.

Docker builds the images if it is installed, otherwise buildah (Linux, root).
"""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.archives import Archive
from tests.support.cluster import images

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
IMAGES: Mapping[str, images.Image] = {"operator": images.OPERATOR, "worker": images.WORKER}


def path_of(part: str) -> str:
    """Return the path of the bill of materials in an image."""
    return f"/opt/agentqueue/share/sbom/agentqueue-{part}.cdx.json"


def main() -> None:
    """Write one file per image."""
    DIST.mkdir(exist_ok=True)
    for part, image in IMAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            archive = Archive(_by_docker(image, Path(folder)) if _has_docker() else images.build(image))
            target = DIST / Path(path_of(part)).name
            target.write_bytes(archive.read(path_of(part)))
        print(target.relative_to(ROOT))


def _has_docker() -> bool:
    """Return True if the Docker engine answers. The command alone is not enough."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0  # noqa: S607


def _by_docker(image: images.Image, folder: Path) -> Path:
    archive = folder / "image.tar"
    build = ["docker", "build", "--quiet", "--tag", image.name, "--file", str(image.dockerfile), str(image.context)]
    subprocess.run(build, check=True)  # noqa: S603  # our own Dockerfiles
    subprocess.run(["docker", "save", "--output", str(archive), image.name], check=True)  # noqa: S603, S607
    return archive


if __name__ == "__main__":
    main()
