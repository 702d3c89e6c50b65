"""Certificates for tests, from an authority that exists for one test only."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import trustme

from agentqueue.store import Tls


@dataclass(frozen=True)
class Certificates:
    """Files of an authority, of a server for some names, and of a client."""

    folder: Path

    @property
    def ca(self) -> str:
        """The authority's certificate."""
        return str(self.folder / "ca.pem")

    def of(self, whom: str) -> tuple[str, str]:
        """Files of the certificate and the private key of `server` or `client`."""
        return str(self.folder / f"{whom}.pem"), str(self.folder / f"{whom}.key")

    @staticmethod
    def text(name: str) -> str:
        """What is in one of the files."""
        return Path(name).read_text()

    def copy_to(self, folder: Path, whose: str = "") -> "Certificates":
        """The files, or only those of `client`, in another folder, over what is there."""
        folder.mkdir(exist_ok=True)
        for path in self.folder.glob(f"{whose}*"):
            (folder / path.name).write_bytes(path.read_bytes())
        return Certificates(folder)

    @property
    def tls(self) -> Tls:
        """What a client needs that the authority's servers let in."""
        cert, key = self.of("client")
        return Tls(ca_file=self.ca, cert_file=cert, key_file=key)

    def server_config(self, tls_port: int, *, auth_clients: bool = True) -> dict[str, str]:
        """What a redis-server with TLS is started with."""
        cert, key = self.of("server")
        return {
            "tls-port": str(tls_port),
            "tls-cert-file": cert,
            "tls-key-file": key,
            "tls-ca-cert-file": self.ca,
            "tls-auth-clients": "yes" if auth_clients else "no",
        }


def issue(folder: Path, *names: str, until: datetime | None = None) -> Certificates:
    """Make an authority, a certificate for a server of these names, and one for a client; valid until then."""
    begins = None if until is None else until - timedelta(days=1)
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for whom, subjects in (("server", names or ("localhost", "127.0.0.1")), ("client", ("worker@example",))):
        leaf = authority.issue_cert(*subjects, not_before=begins, not_after=until)
        leaf.private_key_pem.write_to_path(folder / f"{whom}.key")
        (folder / f"{whom}.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    return Certificates(folder)
