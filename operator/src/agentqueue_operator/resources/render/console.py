"""The web console and HTTP API: a Deployment, its Service and its token."""

from typing import Final

from agentqueue.service.environment import CONSOLE_HOST, CONSOLE_PORT, CONSOLE_TOKEN, DEFAULT_CONSOLE_PORT
from agentqueue.spec import ResolvedQueue
from agentqueue_operator.resources.kinds import DEPLOYMENT, SECRET, SERVICE, SERVICE_ACCOUNT, Object
from agentqueue_operator.resources.render.connection import connection
from agentqueue_operator.resources.render.inputs import RenderContext
from agentqueue_operator.resources.render.names import CONSOLE, console_name, labels, selector
from agentqueue_operator.resources.render.objects import encode_data, new_object
from agentqueue_operator.resources.render.pod_templates import (
    HTTP,
    Container,
    Pod,
    container_resources,
    env_from_secret,
    env_var,
    http_probe,
    pod_template,
)

TOKEN_KEY: Final = "token"  # noqa: S105  # the key's name
"""Key of the generated Secret that holds the token."""
COMMAND: Final = ["env", "--block-signal=TERM", "python", "-m", "agentqueue.console"]
"""Command of the container. The default image is the operator's, which has another entry point. SIGTERM is blocked
until Python can handle it."""
GRACE_S: Final = 30
"""Termination grace period, in seconds: enough for requests that are being answered."""
RESOURCES: Final[Object] = {"requests": {"cpu": "20m", "memory": "64Mi"}}
"""Resources unless the AgentQueue sets some: those of an idle console."""


def console_objects(queue: ResolvedQueue, context: RenderContext) -> tuple[Object, ...]:
    """Return the console's objects, or nothing if it is disabled."""
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
    token: list[Object] = []
    if queue.console.token_secret_ref is None and context.console_token is not None:
        data = encode_data({TOKEN_KEY: context.console_token})
        token.append(new_object(SECRET, name, marks, type="Opaque", data=data))
    return (
        new_object(SERVICE_ACCOUNT, name, marks, automountServiceAccountToken=False),
        *token,
        new_object(SERVICE, name, marks, spec={"type": service.type.value, "selector": chosen, "ports": ports}),
        new_object(DEPLOYMENT, name, marks, spec=deployment),
    )


def console_access(queue: ResolvedQueue, namespace: str) -> Object:
    """Return `status.console`: the console's Service, the Secret with its token, and a command that forwards its port.

    Args:
        queue: the AgentQueue.
        namespace: its namespace, for the command.
    """
    name, port = console_name(queue.name), queue.console.service.port
    secret, key = _token_key(queue)
    return {
        "service": name,
        "port": port,
        "secretName": secret,
        "secretKey": key,
        "openWith": f"kubectl port-forward --namespace {namespace} service/{name} {DEFAULT_CONSOLE_PORT}:{port}",
    }


def _token_key(queue: ResolvedQueue) -> tuple[str, str]:
    """Return the Secret that holds the token, and the key in it."""
    token = queue.console.token_secret_ref
    return (token.name, token.key) if token else (console_name(queue.name), TOKEN_KEY)


def console_template(queue: ResolvedQueue, context: RenderContext) -> Object:
    """Return the console's pod template."""
    console = queue.console
    generated = context.console_token if console.token_secret_ref is None else None
    return pod_template(
        _container(queue, context),
        Pod(
            owner="console",
            labels=labels(queue.name, CONSOLE),
            config=[context.password, generated],
            content_hash=context.content_hashes.get(CONSOLE),
            service_account=console_name(queue.name),
            grace_s=GRACE_S,
            templates=(console.pod_template,) if console.pod_template else (),
        ),
    )


def _container(queue: ResolvedQueue, context: RenderContext) -> Container:
    console, to_redis = queue.console, connection(queue)
    secret, key = _token_key(queue)
    return Container(
        name=CONSOLE,
        image=console.image or context.images.console,
        body={
            "command": COMMAND,
            "ports": [{"name": HTTP, "containerPort": DEFAULT_CONSOLE_PORT, "protocol": "TCP"}],
            "startupProbe": http_probe("/healthz", period=1, timeout=5, failures=60),
            "readinessProbe": http_probe("/healthz", period=5, timeout=5, failures=3),
            "livenessProbe": http_probe("/healthz", period=10, timeout=10, failures=6),
            "resources": container_resources(console.resources, RESOURCES),
        },
        env=(
            *to_redis.env,
            env_var(CONSOLE_HOST, "0.0.0.0"),  # noqa: S104  # in a pod, behind a token
            env_var(CONSOLE_PORT, DEFAULT_CONSOLE_PORT),
            env_from_secret(CONSOLE_TOKEN, secret, key),
        ),
        mounts=to_redis.mounts,
        volumes=to_redis.volumes,
    )
