"""What is installed on the tests' Kubernetes: the project's images, by the names that samples and charts know."""

from collections.abc import Sequence

from tests.support.cluster.images import OPERATOR, REDIS, WORKER, Image
from tests.support.cluster.program import ROOT

TRAVEL = Image(
    "docker.io/library/agentqueue-travel:dev",
    ROOT / "examples" / "travel" / "Dockerfile",
    ROOT / "examples" / "travel",
    (("WORKER", WORKER.name),),
)
"""The example of an image that a user makes from the worker's; manifests/samples/agentqueue.yaml names it."""

IMAGES: Sequence[Image] = (WORKER, OPERATOR, REDIS, TRAVEL)
"""In the order in which they can be built."""
