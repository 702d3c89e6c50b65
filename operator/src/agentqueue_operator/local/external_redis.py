"""Connection options for the external Redis that a resource file refers to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agentqueue.errors import InvalidSpec, UsageError
from agentqueue.local.server import private_folder, write_private
from agentqueue.service import environment as env
from agentqueue.spec import Loaded
from agentqueue.spec.redis import ExternalRedis
from agentqueue.store import Sentinels, ServerOptions, Tls, parse_nodes, server_options


def external_server(redis: ExternalRedis, loaded: Loaded, shell: Mapping[str, str], folder: Path) -> ServerOptions:
    """Return the connection options from the Secrets in the file, or from the shell's variables.

    Args:
        redis: `spec.redis.external` of the resource.
        loaded: the file.
        shell: environment variables. Those of `environment.CONNECTION` replace Secrets that are not in the file.
        folder: data folder. Certificates and keys of the file are written to `tls` in it, for the worker processes.

    Raises:
        InvalidSpec: a value is neither in the file nor in the shell.
        UsageError: a value is invalid.
    """
    sources = _Sources(loaded, shell, folder)
    key = redis.url_secret_ref
    found = loaded.secret(key.name)
    url = (found or {}).get(key.key)
    try:
        options = ServerOptions(url) if url else server_options(shell)
    except UsageError as error:
        where = f"key {key.key} of the Secret {key.name} in {loaded.source}: " if url else ""
        raise UsageError(f"{where}{error}") from None
    if options is None:
        raise sources.missing("the Redis url", key.name, key.key, env.REDIS_URL)
    if redis.tls is not None:
        ca, pair = redis.tls.ca_secret_ref, redis.tls.client_certificate_secret_name
        tls = Tls(
            ca_file=None
            if ca is None
            else sources.file("the certificate authority", ca.name, ca.key, env.REDIS_CA_FILE),
            cert_file=None if pair is None else sources.file("the certificate", pair, "tls.crt", env.REDIS_CERT_FILE),
            key_file=None if pair is None else sources.file("the private key", pair, "tls.key", env.REDIS_KEY_FILE),
            skip_verify=redis.tls.insecure_skip_verify,
        )
        options = replace(options, tls=tls)
    if redis.sentinel is not None:
        ref, variable = redis.sentinel.password_secret_ref, env.REDIS_SENTINEL_PASSWORD
        password = None if ref is None else sources.text("the Sentinels' password", ref.name, ref.key, variable)
        nodes = parse_nodes(",".join(redis.sentinel.nodes))
        options = replace(options, sentinel=Sentinels(redis.sentinel.master_name, nodes, password))
    return options


@dataclass(frozen=True, slots=True)
class _Sources:
    loaded: Loaded
    shell: Mapping[str, str]
    folder: Path

    def missing(self, what: str, secret: str, key: str, variable: str) -> InvalidSpec:
        return InvalidSpec(
            f"{what} is in key {key} of the Secret {secret}, which is not in {self.loaded.source}: "
            f"add the Secret as another document, or set {variable}"
        )

    def text(self, what: str, secret: str, key: str, variable: str) -> str:
        found = (self.loaded.secret(secret) or {}).get(key) or self.shell.get(variable)
        if not found:
            raise self.missing(what, secret, key, variable)
        return found.strip()

    def file(self, what: str, secret: str, key: str, variable: str) -> str:
        """Return the path of a file with the value. The shell's variable is a path too."""
        found = (self.loaded.secret(secret) or {}).get(key)
        if not found:
            return self.text(what, secret, key, variable)
        path = private_folder(self.folder / "tls") / f"{secret}-{key}"
        write_private(path, found)
        return str(path.absolute())
