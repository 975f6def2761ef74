"""Proxies of others as processes of their own, with the samples in ``etc`` for their configuration."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from .authority import authority
from .daemon import CHECKOUT, PATIENCE, free_port
from .programs import program

#: From where clients come, so that they can be told from a proxy.
CLIENT = "127.0.0.2"

#: The address that the samples have for the server.
_SERVER = "127.0.0.1:4437"


def sample(name: str, changes: Mapping[str, str]) -> str:
    """Read a sample, with other ports and paths; each must be there exactly once outside of comments."""
    lines = (CHECKOUT / "etc" / name).read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")) + "\n"
    for there, instead in changes.items():
        assert text.count(there) == 1, f"{there!r} stands {text.count(there)} times in etc/{name}"
        text = text.replace(there, instead)
    return text


class Proxy:
    """
    A proxy that is running, with TLS on a port of its own.

    :param upstream: where the server is, as the proxy's configuration writes it.
    """

    program = ""

    def __init__(self, upstream: str) -> None:
        path = program(self.program)
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        # The proxy's workers may be somebody else's.
        self.folder.chmod(0o755)
        issued = authority().issue("streams.example")
        self.certificate, self.key, self.both = (self.folder / name for name in ("crt", "key", "pem"))
        self.certificate.write_bytes(issued.certificate_pem)
        self.key.write_bytes(issued.key_pem())
        self.both.write_bytes(issued.certificate_pem + issued.key_pem())
        self._log = self.folder / "log"
        configuration = self.folder / "configuration"
        configuration.write_text(self.configuration(upstream))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [path, *self.arguments(configuration)],
                cwd=self.folder,
                env={"HOME": str(self.folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def configuration(self, upstream: str) -> str:
        """Write the configuration."""
        raise NotImplementedError

    def arguments(self, configuration: Path) -> list[str]:
        """Return the command that starts the proxy."""
        raise NotImplementedError

    def __enter__(self) -> Proxy:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                # Only streams are passed on; the proxy itself would not answer with 204.
                if self.request("OPTIONS", "/v1/stream/any")[0] == 204:
                    return self
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.05)
        self.close()
        raise AssertionError(f"{self.program} did not come up:\n{self.log_at_end}")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def log(self) -> str:
        """The proxy's output."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self.log_at_end = self.log
        self._folder.cleanup()

    # What a client does

    def connect(self) -> http.client.HTTPSConnection:
        """Make a client, which connects when it asks for something."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=PATIENCE, context=context, source_address=(CLIENT, 0)
        )

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask on a connection of its own; names of headers come in lower case."""
        connection = self.connect()
        try:
            connection.request(method, path, body, {"Host": "streams.example", **(headers or {})})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()


class Nginx(Proxy):
    """nginx."""

    program = "nginx"

    def configuration(self, upstream: str) -> str:
        server = sample(
            "nginx.conf.sample",
            {
                _SERVER: upstream,
                "443 ssl": f"127.0.0.1:{self.port} ssl",
                "/etc/ssl/streams.example.com.pem": str(self.certificate),
                "/etc/ssl/private/streams.example.com.key": str(self.key),
                "server_name streams.example.com;": "",
            },
        )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {self.folder}/{kind};\n" for kind in kinds)
        return (
            f"daemon off;\nworker_processes 1;\npid {self.folder}/pid;\nerror_log stderr;\nuser root;\n"
            f"events {{ worker_connections 512; }}\nhttp {{\naccess_log off;\n{paths}{server}}}\n"
        )

    def arguments(self, configuration: Path) -> list[str]:
        return ["-p", str(self.folder), "-e", "stderr", "-c", str(configuration)]


class HAProxy(Proxy):
    """HAProxy."""

    program = "haproxy"

    def configuration(self, upstream: str) -> str:
        return sample(
            "haproxy.cfg.sample",
            {
                _SERVER: upstream,
                "bind :443": f"bind 127.0.0.1:{self.port}",
                "/etc/haproxy/streams.example.com.pem": str(self.both),
                # More than a test may open.
                "maxconn 20000": "maxconn 200",
            },
        )

    def arguments(self, configuration: Path) -> list[str]:
        return ["-db", "-f", str(configuration)]


class CompressingHAProxy(HAProxy):
    """HAProxy with compression, of events too, as far as an answer allows it."""

    def configuration(self, upstream: str) -> str:
        backend = "filter compression\ncompression algo gzip\ncompression type text/plain text/event-stream\n"
        return super().configuration(upstream) + backend


class Caddy(Proxy):
    """Caddy."""

    program = "caddy"

    def configuration(self, upstream: str) -> str:
        site = sample(
            "Caddyfile.sample",
            {
                _SERVER: upstream,
                "streams.example.com {": f"https://:{self.port} {{\ntls {self.certificate} {self.key}",
            },
        )
        return f"{{\nadmin off\nauto_https off\nskip_install_trust\ndefault_bind 127.0.0.1\n}}\n{site}"

    def arguments(self, configuration: Path) -> list[str]:
        return ["run", "--adapter", "caddyfile", "--config", str(configuration)]


def peers_of(port: int) -> set[tuple[str, int]]:
    """Return the peers that are connected to a local port."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        address, _, remote_port = remote.partition(":")
        if state == "01" and int(local.partition(":")[2], 16) == port:
            found.add((socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(remote_port, 16)))
    return found


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that takes its time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
