"""Draw the pictures of docs/architecture.md: the rooms from the import contracts, the journeys from lists of functions.

A journey names real functions: drawing it fails when one of them is gone.
"""

import ast
import textwrap
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = {
    "agentqueue": ROOT / "src",
    "agentqueue_operator": ROOT / "operator/src",
    "agentqueue_worker": ROOT / "worker/src",
}
FONT: Final = "ui-sans-serif, system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
INK: Final = "#1f2933"
FAINT: Final = "#616e7c"
LINE: Final = "#9aa5b1"
FILLS: Final = ("#e6f0fb", "#e8f5e9", "#fff3e0", "#f3e8fb", "#fdecea", "#e0f4f4", "#f1f3f5")
"""Fills of layers and lanes, in turn; the text on each has a contrast above 7 to 1."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a journey."""

    room: str
    """The lane that it is drawn in."""
    function: str
    """`package.module:Class.method`, or a file of the repository for what is not Python."""
    text: str
    """One short sentence."""


@dataclass(frozen=True, slots=True)
class Journey:
    """One value on its way through the rooms."""

    title: str
    steps: Sequence[Step]


JOURNEYS: Final[Mapping[str, Journey]] = {
    "payload": Journey(
        "A payload: from enqueue to the handler, and back as a result",
        (
            Step(
                "client",
                "agentqueue.client.async_client:Client.enqueue",
                "The producer names a queue, a job and its data.",
            ),
            Step(
                "client",
                "agentqueue.client.arguments:read_call",
                "Read the call: a queue and a name, or a decorated function.",
            ),
            Step(
                "agent", "agentqueue.agent.payload:Payload.dump", "Check the payload against the handler's annotation."
            ),
            Step("model", "agentqueue.model.new_job:prepare_job", "Check the options and encode the job record."),
            Step("store", "agentqueue.store.jobs:Store.enqueue", "Send the record in one round trip."),
            Step(
                "scripts",
                "src/agentqueue/store/scripts/enqueue.lua",
                "Store the job unless its ID is known, and wake a worker.",
            ),
            Step(
                "worker app",
                "agentqueue_worker.app.claim_loop:ClaimLoop.run",
                "The worker asks for jobs for its free slots, and short ones ahead.",
            ),
            Step(
                "store",
                "agentqueue.store.engine:Engine.finish_and_claim",
                "Report finished jobs and claim new ones in one round trip.",
            ),
            Step(
                "scripts",
                "src/agentqueue/store/scripts/finish_and_claim.lua",
                "Record outcomes, then lease the most urgent due jobs.",
            ),
            Step("worker app", "agentqueue_worker.app.runner:Runner.start", "Decode the record and find its handler."),
            Step("worker domain", "agentqueue_worker.domain.admission:admit", "Decide: start, defer, reject or drop."),
            Step(
                "adapters",
                "agentqueue_worker.adapters.agents:AgentHandler.call",
                "Validate the payload and call the handler in its own task.",
            ),
            Step(
                "worker app",
                "agentqueue_worker.app.outcome_factory:OutcomeFactory.completed",
                "Encode the result record.",
            ),
            Step(
                "worker domain",
                "agentqueue_worker.domain.outbox:Outbox.add",
                "Keep the outcome until the next round trip takes it along.",
            ),
            Step("scripts", "src/agentqueue/store/scripts/finish_and_claim.lua", "Store the result and end the lease."),
            Step(
                "client", "agentqueue.client.async_client:Client.result", "The producer waits until the job is final."
            ),
            Step(
                "store",
                "agentqueue.store.jobs:Store.inspect",
                "Read everything that is known of the job at one instant.",
            ),
            Step("client", "agentqueue.client.results:result_of", "Return the result, or raise the error of the job."),
        ),
    ),
    "resource": Journey(
        "A resource: from kubectl apply to pods and conditions",
        (
            Step(
                "kubernetes",
                "agentqueue_operator.controller.kubernetes.kopf_handlers:make_registry",
                "kopf watches AgentQueues and what belongs to them.",
            ),
            Step(
                "kubernetes",
                "agentqueue_operator.controller.kubernetes.cache:StoreCache.put",
                "Keep the newest version of the object, and wake its AgentQueue.",
            ),
            Step(
                "controller",
                "agentqueue_operator.controller.work_queue:WorkQueue.wake",
                "Schedule a reconcile; several events lead to one.",
            ),
            Step(
                "controller",
                "agentqueue_operator.controller.reconciler:QueueReconciler.run",
                "Reconcile once: read what is there, decide, apply, report.",
            ),
            Step(
                "controller",
                "agentqueue_operator.controller.redis_connection:RedisConnection.observe",
                "Reach Redis with the credentials of the AgentQueue.",
            ),
            Step(
                "scaling",
                "agentqueue_operator.controller.scaling.scaler:QueueScaler.scale",
                "Decide the replicas of each agent (see the next picture).",
            ),
            Step(
                "resources",
                "agentqueue_operator.resources.render.manifests:render",
                "Render every manifest that the AgentQueue needs.",
            ),
            Step(
                "controller",
                "agentqueue_operator.controller.applier:Applier.apply_all",
                "Compare the manifests with the objects that are there.",
            ),
            Step(
                "resources",
                "agentqueue_operator.resources.plan:plan",
                "Decide what to create, apply, change or delete.",
            ),
            Step(
                "kubernetes",
                "agentqueue_operator.controller.kubernetes.client:KubernetesCluster.apply",
                "Write by server-side apply, under the operator's field manager.",
            ),
            Step(
                "status",
                "agentqueue_operator.controller.status.conditions:conditions_of",
                "Decide the conditions from the facts of the reconcile.",
            ),
            Step(
                "status",
                "agentqueue_operator.controller.status.writer:StatusWriter.write_status",
                "Write the status if it changed, and record events.",
            ),
        ),
    ),
    "scaling": Journey(
        "A scaling decision: from the depth of a queue to replicas",
        (
            Step(
                "scaling",
                "agentqueue_operator.controller.scaling.scaler:QueueScaler.scale",
                "Scale the agents of one AgentQueue.",
            ),
            Step(
                "queues",
                "agentqueue_operator.queues.reader:QueueReader.read",
                "Read all queues of the server in one round trip.",
            ),
            Step("queues", "agentqueue_operator.queues.reader:metrics_of", "Turn a snapshot into queue metrics."),
            Step(
                "scaling",
                "agentqueue_operator.controller.scaling.agent_history:AgentHistory.observe",
                "Combine the metrics with the agent's pods and what was seen before.",
            ),
            Step(
                "autoscaling",
                "agentqueue_operator.autoscaling.observer:AgentObserver.observe",
                "Learn arrivals, service times and start times.",
            ),
            Step(
                "scaling",
                "agentqueue_operator.controller.scaling.agent_history:AgentHistory.decide",
                "Put the load, the pods and the rates of this instant together.",
            ),
            Step(
                "autoscaling",
                "agentqueue_operator.autoscaling.observer:AgentObserver.decide",
                "Decide with the memory of earlier decisions; `agentqueue up` calls the same.",
            ),
            Step(
                "autoscaling",
                "agentqueue_operator.autoscaling.decision:decide_replicas",
                "Decide how many pods there should be, and why.",
            ),
            Step(
                "autoscaling",
                "agentqueue_operator.autoscaling.demand:compute_demand",
                "The formula: how many pods the work needs.",
            ),
            Step(
                "scaling",
                "agentqueue_operator.controller.scaling.scale_in:plan_scale_in",
                "Choose pods to drain, and the replicas that end no busy pod.",
            ),
            Step(
                "scaling",
                "agentqueue_operator.controller.scaling.drain_handshake:Handshake.carry_out",
                "Request drains, wait for confirmations, set deletion costs.",
            ),
            Step(
                "queues",
                "agentqueue_operator.queues.decision_publisher:Publisher.publish",
                "Publish the decision for `agentqueue explain`.",
            ),
            Step(
                "controller",
                "agentqueue_operator.controller.reconciler:QueueReconciler.run",
                "Render the Deployment with the new replicas.",
            ),
        ),
    ),
    "replay": Journey(
        "A replay: from agentqueue dead replay back to the queue",
        (
            Step("cli", "agentqueue.cli.dead_letters:replay", "Read the selection: IDs, a fingerprint or --all."),
            Step(
                "client",
                "agentqueue.client.async_client:Client.replay",
                "Split the selection into chunks that keep the server responsive.",
            ),
            Step("store", "agentqueue.store.jobs:Store.replay", "Send a chunk of IDs in one round trip."),
            Step(
                "scripts",
                "src/agentqueue/store/scripts/replay.lua",
                "Move each dead letter back into its queue; return a status for each.",
            ),
            Step(
                "client",
                "agentqueue.client.results:replayed_of",
                "Count what was replayed, and name what was not, with the reason.",
            ),
            Step("cli", "agentqueue.cli.output:print_line", "Print the count, and the next step for what is left."),
        ),
    ),
}


# Rooms


def layers_of(container: str) -> list[list[str]]:
    """Return the rooms of a package, the highest layer first, as the import contract of pyproject.toml has them."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = [it for it in options["contracts"] if it.get("containers") == [container]]
    return [layer.split(" | ") for layer in contract["layers"]]


def purpose_of(module: str) -> str:
    """Return the first sentence of a module's or package's docstring."""
    folder = SOURCES[module.split(".", maxsplit=1)[0]].joinpath(*module.split("."))
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    return doc.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")


def rooms_picture(container: str, title: str) -> str:
    """Draw the rooms of a package as layers: each may import only from the layers below it."""
    layers = layers_of(container)
    width, row, top = 860, 64, 56
    body = [_text(20, 32, title, size=17, weight=600)]
    for number, rooms in enumerate(layers):
        y = top + number * (row + 10)
        box = (width - 40 - 10 * (len(rooms) - 1)) / len(rooms)
        for place, room in enumerate(sorted(rooms)):
            x = 20 + place * (box + 10)
            body.append(_box(x, y, box, row, FILLS[number % len(FILLS)]))
            body.append(_text(x + box / 2, y + 23, room, size=14, weight=600, anchor="middle"))
            words = textwrap.wrap(purpose_of(f"{container}.{room}"), int(box / 5.6), max_lines=2, placeholder=" …")
            for line, part in enumerate(words):
                body.append(_text(x + box / 2, y + 39 + 13 * line, part, size=10, fill=FAINT, anchor="middle"))
    return _svg(width, top + len(layers) * (row + 10) + 10, title, body)


# Journeys


def _is_there(function: str) -> bool:
    module, _, name = function.partition(":")
    if not name:
        return (ROOT / function).is_file()
    path = SOURCES[module.split(".")[0]].joinpath(*module.split(".")).with_suffix(".py")
    body: Sequence[ast.stmt] = ast.parse(path.read_text()).body if path.is_file() else ()
    for part in name.split("."):
        found = [
            it
            for it in body
            if isinstance(it, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and it.name == part
        ]
        if not found:
            return False
        body = found[-1].body
    return True


def journey_picture(journey: Journey) -> str:
    """Draw a journey: one lane for each room, one row for each call, from top to bottom."""
    missing = [step.function for step in journey.steps if not _is_there(step.function)]
    if missing:
        raise ValueError(f"{journey.title}: no function {', '.join(missing)}")
    lanes = list(dict.fromkeys(step.room for step in journey.steps))
    lane, row, top, left = 118, 46, 92, 20
    text_x = left + lane * len(lanes) + 16
    width, height = text_x + 440, top + row * len(journey.steps) + 16
    body = [_text(20, 32, journey.title, size=17, weight=600)]
    for number, room in enumerate(lanes):
        edge = left + number * lane
        body.append(_box(edge + 4, 48, lane - 8, height - 60, FILLS[number % len(FILLS)]))
        body.append(_text(edge + lane / 2, 70, room, size=12, weight=600, anchor="middle"))
    before: tuple[float, float] | None = None
    for number, step in enumerate(journey.steps):
        x, y = left + lanes.index(step.room) * lane + lane / 2, top + number * row + 14
        if before is not None:
            body.append(_arrow(*before, x, y))
        body.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="11" fill="{INK}"/>')
        body.append(_text(x, y + 4, str(number + 1), size=11, fill="#ffffff", weight=600, anchor="middle"))
        body.append(_text(text_x, y - 2, f"{number + 1}  {_short(step.function)}", size=12, weight=600))
        body.append(_text(text_x, y + 13, step.text, size=11, fill=FAINT))
        before = (x, y)
    return _svg(width, height, journey.title, body)


def _short(function: str) -> str:
    module, _, name = function.partition(":")
    return f"{module.split('.', 1)[-1]}: {name}" if name else Path(module).name


# SVG


def _svg(width: float, height: float, title: str, body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" font-family="{FONT}">\n<title>{escape(title)}</title>\n'
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{FAINT}"/></marker></defs>\n'
        f'<rect width="100%" height="100%" rx="8" fill="#ffffff"/>\n'
    )
    return head + "\n".join(body) + "\n</svg>\n"


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}"'
    return f'<rect x="{x:.0f}" y="{y:.0f}" {size} rx="6" fill="{fill}" stroke="{LINE}" stroke-width="0.7"/>'


def _text(
    x: float, y: float, words: str, *, size: int, fill: str = INK, weight: int = 400, anchor: str = "start"
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}"'
    return f'<text x="{x:.0f}" y="{y:.0f}" {style}>{escape(words)}</text>'


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """Draw from the rim of one circle (radius 11) to the rim of the next."""
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    dx, dy = 12 * (x2 - x1) / length, 12 * (y2 - y1) / length
    ends = f'x1="{x1 + dx:.1f}" y1="{y1 + dy:.1f}" x2="{x2 - dx:.1f}" y2="{y2 - dy:.1f}"'
    return f'<line {ends} stroke="{FAINT}" stroke-width="1.4" marker-end="url(#tip)"/>'


PICTURES: Final[Mapping[str, Callable[[], str]]] = {
    "docs/architecture/library.svg": lambda: rooms_picture("agentqueue", "The library: src/agentqueue"),
    "docs/architecture/operator.svg": lambda: rooms_picture("agentqueue_operator", "The operator: agentqueue_operator"),
    "docs/architecture/controller.svg": lambda: rooms_picture(
        "agentqueue_operator.controller", "In the operator: controller"
    ),
    "docs/architecture/worker.svg": lambda: rooms_picture("agentqueue_worker", "The worker: agentqueue_worker"),
    **{f"docs/architecture/{name}.svg": partial(journey_picture, journey) for name, journey in JOURNEYS.items()},
}
