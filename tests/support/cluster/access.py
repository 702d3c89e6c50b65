"""How to reach an API server: read from any kubeconfig, whatever way of logging in it names."""

import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass(frozen=True)
class Access:
    """An API server's address, whom to trust and who to be."""

    server: str
    authority: Path | None
    token: str | None = None
    certificate: tuple[Path, Path] | None = None

    @classmethod
    def own(cls, kubeconfig: Path) -> "Access":
        """By a kubeconfig that the project's own cluster wrote."""
        content = json.loads(kubeconfig.read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        return cls(cluster["server"], Path(cluster["certificate-authority"]), user["token"])

    @classmethod
    def given(cls, kubeconfig: str) -> "Access":
        """By a user's kubeconfig, in its current context."""
        from kubernetes import client, config  # half a second that the own cluster has no use for

        found = client.Configuration()
        config.load_kube_config(config_file=kubeconfig, client_configuration=found)
        authority = Path(found.ssl_ca_cert) if found.ssl_ca_cert else None
        bearer = found.get_api_key_with_prefix("BearerToken", "authorization") or ""
        pair = (Path(found.cert_file), Path(found.key_file)) if found.cert_file and found.key_file else None
        return cls(found.host, authority, bearer.removeprefix("Bearer ") or None, pair)

    def tls(self) -> ssl.SSLContext:
        """What to check the server by, and the certificate to show."""
        context = ssl.create_default_context(cafile=self.authority)
        if self.certificate:
            context.load_cert_chain(*self.certificate)
        return context

    def headers(self) -> dict[str, str]:
        """Who asks."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def client(self) -> httpx.Client:
        """A client that waits for its answers; no proxy of this machine's environment comes between."""
        return httpx.Client(**self._options())

    def async_client(self) -> httpx.AsyncClient:
        """The same for an event loop."""
        return httpx.AsyncClient(**self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "base_url": self.server,
            "verify": self.tls(),
            "headers": self.headers(),
            "trust_env": False,
            "timeout": 30,
        }
