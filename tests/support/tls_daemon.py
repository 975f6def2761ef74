"""The daemon as a process that serves over TLS, and the certificates that it takes."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from .authority import Issued, authority
from .daemon import PATIENCE, Daemon
from .handshakes import client_context
from .programs import program


class Certificates:
    """A folder with everything that a server and its clients need, which goes with the test."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory()
        self.folder = Path(self._place.name)
        self.ca = self.folder / "ca.pem"
        self.ca.write_bytes(authority().certificate_pem)
        self.server = authority().issue()
        self.certificate, self.key = (Path(path) for path in self.server.write(self.folder, "server"))
        self.client, self.client_key = authority().client().write(self.folder, "client")

    def replace(self, issued: Issued) -> None:
        """Put another certificate in the server's place, as careful programs do, one file after the other."""
        for path, data in ((self.certificate, issued.certificate_pem), (self.key, issued.key_pem())):
            beside = path.with_suffix(".new")
            beside.write_bytes(data)
            os.replace(beside, path)

    def clean_up(self) -> None:
        """Remove the folder."""
        self._place.cleanup()


class TLSDaemon(Daemon):
    """A daemon over TLS: HTTP/1.1 and HTTP/2, unless the settings say otherwise."""

    def __init__(self, certificates: Certificates, mode: str = "tls", **settings: object) -> None:
        self.certificates = certificates
        chosen: dict[str, object] = {
            "transport__mode": mode,
            "transport__http__versions": "http1,http2",
            "transport__tls__cert_path": certificates.certificate,
            "transport__tls__key_path": certificates.key,
        }
        if mode == "mtls":
            chosen["transport__tls__client_ca_path"] = certificates.ca
        self._mode = mode
        super().__init__(None, **(chosen | settings))

    def __enter__(self) -> TLSDaemon:
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, value, trace)

    @property
    def url(self) -> str:
        """The base URL of the daemon."""
        return f"https://localhost:{self.port}"

    def context(self, shows: bool = True, **options: Any) -> ssl.SSLContext:
        """Make what a client begins with."""
        context = client_context(authority(), **options)
        if shows and self._mode == "mtls":
            context.load_cert_chain(self.certificates.client, self.certificates.client_key)
        return context

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPSConnection("localhost", self.port, timeout=PATIENCE, context=self.context())

    def shown(self) -> bytes:
        """Connect, and say which certificate is shown."""
        with (
            socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain,
            self.context().wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return secure.getpeercert(True) or b""

    def shows(self, issued: Issued) -> bool:
        """Return whether a new connection gets this certificate."""
        return self.shown() == issued.certificate.public_bytes(Encoding.DER)

    def curl(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run curl, which trusts the authority; the last argument is a path."""
        command = [program("curl"), "-sS", "--max-time", str(PATIENCE), "--cacert", str(self.certificates.ca)]
        command += [*arguments[:-1], self.url + arguments[-1]]
        return subprocess.run(command, capture_output=True, timeout=2 * PATIENCE, check=False)
