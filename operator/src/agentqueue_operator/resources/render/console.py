"""The web console and HTTP API: a Deployment, its Service and its token."""

from collections.abc import Iterator
from typing import Final

from agentqueue.service.environment import CONSOLE_HOST, CONSOLE_PORT, CONSOLE_TOKEN, DEFAULT_CONSOLE_PORT
from agentqueue.spec import ResolvedQueue
from agentqueue_operator.resources.kinds import DEPLOYMENT, SECRET, SERVICE, SERVICE_ACCOUNT, Object
from agentqueue_operator.resources.render.connection import connection
from agentqueue_operator.resources.render.inputs import RenderContext
from agentqueue_operator.resources.render.names import CONSOLE, console_name, labels, selector
from agentqueue_operator.resources.render.objects import encoded, made
from agentqueue_operator.resources.render.pod_templates import (
    HTTP,
    Container,
    Pod,
    amounts,
    from_secret,
    http_get,
    pod_template,
    variable,
)

TOKEN_KEY: Final = "token"  # noqa: S105  # the key's name
COMMAND: Final = ["env", "--block-signal=TERM", "python", "-m", "agentqueue.console"]
"""On the operator's image by default, whose entry point is another. SIGTERM is kept until Python can handle it."""
GRACE_S: Final = 30
RESOURCES: Final[Object] = {"requests": {"cpu": "20m", "memory": "64Mi"}}


def console_objects(queue: ResolvedQueue, context: RenderContext) -> tuple[Object, ...]:
    """All that the console needs; nothing if there is none."""
    if not queue.console.enabled:
        return ()
    name, marks = console_name(queue.name), labels(queue.name, CONSOLE)
    service = queue.console.service
    ports = [{"name": HTTP, "port": service.port, "targetPort": HTTP, "protocol": "TCP"}]
    chosen = selector(queue.name, CONSOLE)
    deployment = {
        "replicas": queue.console.replicas,
        "selector": {"matchLabels": chosen},
        "revisionHistoryLimit": 3,
        "template": console_template(queue, context),
    }
    return (
        made(SERVICE_ACCOUNT, name, marks, automountServiceAccountToken=False),
        *_token(queue, context),
        made(SERVICE, name, marks, spec={"type": service.type.value, "selector": chosen, "ports": ports}),
        made(DEPLOYMENT, name, marks, spec=deployment),
    )


def _token(queue: ResolvedQueue, context: RenderContext) -> Iterator[Object]:
    if queue.console.token_secret_ref is None and context.console_token is not None:
        data = encoded({TOKEN_KEY: context.console_token})
        yield made(SECRET, console_name(queue.name), labels(queue.name, CONSOLE), type="Opaque", data=data)


def console_access(queue: ResolvedQueue, namespace: str) -> Object:
    """How the console is reached, as `status.console` has it: a command that brings it to one's machine, and the Secret
    with the token that it asks for."""
    name, port = console_name(queue.name), queue.console.service.port
    secret, key = _token_at(queue)
    return {
        "service": name,
        "port": port,
        "secretName": secret,
        "secretKey": key,
        "openWith": f"kubectl port-forward --namespace {namespace} service/{name} {DEFAULT_CONSOLE_PORT}:{port}",
    }


def _token_at(queue: ResolvedQueue) -> tuple[str, str]:
    """Secret and key of the token."""
    token = queue.console.token_secret_ref
    return (token.name, token.key) if token else (console_name(queue.name), TOKEN_KEY)


def console_template(queue: ResolvedQueue, context: RenderContext) -> Object:
    """The console's pods."""
    console = queue.console
    generated = context.console_token if console.token_secret_ref is None else None
    return pod_template(
        _container(queue, context),
        Pod(
            of="console",
            labels=labels(queue.name, CONSOLE),
            read=[context.password, generated],
            content=context.content_hashes.get(CONSOLE),
            service_account=console_name(queue.name),
            grace_s=GRACE_S,
            templates=(console.pod_template,) if console.pod_template else (),
        ),
    )


def _container(queue: ResolvedQueue, context: RenderContext) -> Container:
    console, to_redis = queue.console, connection(queue)
    secret, key = _token_at(queue)
    return Container(
        name=CONSOLE,
        image=console.image or context.images.console,
        body={
            "command": COMMAND,
            "ports": [{"name": HTTP, "containerPort": DEFAULT_CONSOLE_PORT, "protocol": "TCP"}],
            "startupProbe": http_get("/healthz", period=1, timeout=5, failures=60),
            "readinessProbe": http_get("/healthz", period=5, timeout=5, failures=3),
            "livenessProbe": http_get("/healthz", period=10, timeout=10, failures=6),
            "resources": amounts(console.resources, RESOURCES),
        },
        env=(
            *to_redis.env,
            variable(CONSOLE_HOST, "0.0.0.0"),  # noqa: S104  # in a pod, behind a token
            variable(CONSOLE_PORT, DEFAULT_CONSOLE_PORT),
            from_secret(CONSOLE_TOKEN, secret, key),
        ),
        mounts=to_redis.mounts,
        volumes=to_redis.volumes,
    )
