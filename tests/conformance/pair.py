"""Two servers on one database, behind a proxy that sends each request to the other one than the last."""

from __future__ import annotations

import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.conformance.fronts import START_SECONDS, FrontFailure, FrontProcess, environment_of, free_port
from tests.support.programs import program

#: Requests of one connection go to both servers in turn. Timeouts are longer than any long-poll or SSE connection.
_CONFIGURATION = """
defaults
    mode http
    timeout connect 5s
    timeout client 120s
    timeout server 120s
frontend clients
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    balance roundrobin
    server first {first}
    server second {second}
"""


class PairProcess:
    """
    Two daemons and the proxy, from their start to their end.

    :ivar authority: None, since there is no TLS.
    """

    authority: Path | None = None

    def __init__(self, storage: str) -> None:
        self._port = free_port()
        environment = environment_of(storage) | {"DS_HTTP__PUBLIC_URL": self.base_url}
        self._servers = [FrontProcess("daemon", storage=storage, environment=environment) for _ in range(2)]
        self._place = tempfile.TemporaryDirectory(prefix="durable-streams-pair-")
        self._proxy: subprocess.Popen[bytes] | None = None
        self._started: list[FrontProcess] = []

    @property
    def base_url(self) -> str:
        """Where the proxy listens, without a path."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start both servers and the proxy."""
        try:
            for server in self._servers:
                server.start()
                self._started.append(server)
            self._start_proxy()
        except BaseException:
            self.stop()
            raise

    def _start_proxy(self) -> None:
        first, second = (server.base_url.removeprefix("http://") for server in self._servers)
        configuration = Path(self._place.name) / "haproxy.cfg"
        configuration.write_text(_CONFIGURATION.format(port=self._port, first=first, second=second))
        self._proxy = subprocess.Popen([program("haproxy"), "-db", "-f", str(configuration)], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._proxy.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.base_url}/healthz", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        raise FrontFailure("the proxy does not answer")

    def stop(self) -> list[str]:
        """Stop all, and return what was wrong with the servers' ends or with their logs."""
        if self._proxy is not None:
            self._proxy.kill()
            self._proxy.wait()
        self._place.cleanup()
        return [complaint for server in self._started for complaint in server.stop()]
