"""``docs/signed-urls.rst``, followed in a folder of its own, with free ports."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from .daemon import CHECKOUT, free_port
from .process_case import wait_for
from .shell import Shell, blocks_of

PAGE: Final = CHECKOUT / "docs" / "signed-urls.rst"
EXAMPLE: Final = Path("docs", "examples", "signed_urls")


class SignedUrlsPage:
    """
    The page's folder: settings, keys, the server, and the application of the example.

    :param valid_seconds: how long the application's URLs are valid.
    :ivar streams: the URL of all streams.
    :ivar application: the URL of the application.
    """

    def __init__(self, place: Path, valid_seconds: int = 60) -> None:
        self.place = place
        port, other = free_port(), free_port()
        changes = {"localhost:4437": f"localhost:{port}", "localhost:8000": f"localhost:{other}"}
        # The commands of the page have Python in the environment of the tests.
        self.shell = Shell(place, changes, {"DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{port}"})
        self.streams = f"http://localhost:{port}/v1/stream"
        self.application = f"http://localhost:{other}"
        shutil.copytree(CHECKOUT / EXAMPLE, place / EXAMPLE)
        backend = place / EXAMPLE / "backend.py"
        text = self.shell.changed(backend.read_text()).replace('("127.0.0.1", 8000)', f'("127.0.0.1", {other})')
        backend.write_text(re.sub("VALID_SECONDS = [0-9]+", f"VALID_SECONDS = {valid_seconds}", text))
        (
            self.settings,
            self.start,
            self.create,
            self.read,
            self.serve_application,
            self.append,
            self.rotate,
        ) = blocks_of(PAGE)

    def set_up(self) -> None:
        """Follow the page until the stream is created."""
        self.shell.run(self.settings)
        # Everything that is recorded has no signature, either.
        with (self.place / "config" / "local.toml").open("a") as file:
            file.write(f'[audit]\nfile = "{self.place}/audit.jsonl"\nevents = "all"\n')
            file.write('[observability]\naccess_log = "all"\nlog_level = "debug"\n')
        self.shell.run(self.start)
        wait_for(lambda: "is ready" in self.log(), "the start of the server")
        self.shell.run(self.create)

    def log(self) -> str:
        """Return the server's log."""
        path = self.place / "twistd.log"
        return path.read_text() if path.exists() else ""

    def recorded(self) -> str:
        """Return all that the server has written: its log and its audit log."""
        return self.log() + (self.place / "audit.jsonl").read_text()

    def tear_down(self) -> None:
        """Stop the application and the server."""
        self.shell.stop()
        self.shell.stop_daemon()
