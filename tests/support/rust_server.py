"""The program of the Rust server, if it is built."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .skipping import skip_not_built

#: The variable with the path of the program.
VARIABLE = "RUST_DURABLE_STREAMS_SERVER"

#: Where the benchmarks install it.
_CACHE = Path("~/.cache/durable-streams-benchmarks/crates/durable-streams-server@0.3.0/bin/durable-streams-server")


def rust_program() -> str:
    """
    Return the path of the Rust server's program, version 0.3.0.

    :raises SkipTest: it is not built.
    """
    path = Path(os.environ.get(VARIABLE, "") or _CACHE).expanduser()
    if not os.access(path, os.X_OK):
        skip_not_built(
            "the Rust server 0.3.0",
            f"cargo install durable-streams-server --version 0.3.0 --root DIR, and set {VARIABLE} to its program",
        )
    return str(path)


class RustServer:
    """
    The Rust server's command with a data directory.

    :param directory: the data directory.
    """

    def __init__(self, directory: str) -> None:
        self._program = rust_program()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        own = {name: value for name, value in os.environ.items() if not name.startswith("DS_")}
        self._environment: Mapping[str, str] = {
            **own,
            "DS_STORAGE__MODE": "file-durable",
            "DS_STORAGE__DATA_DIR": directory,
            "DS_SERVER__BIND_ADDRESS": self.address,
            "RUST_LOG": "error",
        }

    def run(self, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run the command to its end."""
        return subprocess.run(
            [self._program, *arguments],
            input=data,
            capture_output=True,
            env=self._environment,
            timeout=60,
            check=False,
        )

    def exported(self) -> bytes:
        """Export all streams."""
        done = self.run("export")
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve, and return the base URL of streams."""
        process = subprocess.Popen(
            [self._program], env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            for _ in range(200):
                try:
                    with urllib.request.urlopen(f"http://{self.address}/readyz", timeout=5):
                        break
                except OSError:
                    time.sleep(0.05)
            yield f"http://{self.address}/v1/stream/"
        finally:
            process.terminate()
            process.wait(30)
