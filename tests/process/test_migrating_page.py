"""docs/migrating.rst: settings and data directories of the Rust server, and what its clients meet here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import CHECKOUT, PATIENCE, TWISTD, Daemon, environment, free_port
from tests.support.shell import Shell, blocks_of

PAGE: Final = CHECKOUT / "docs" / "migrating.rst"


class SettingsTests(SynchronousTestCase):
    def test_the_file_of_the_page_is_accepted_with_its_warnings(self) -> None:
        settings, command, *_ = blocks_of(PAGE)
        shell = Shell(Path(self.mktemp()).absolute())
        (shell.folder / "rust.toml").write_text(settings)
        ended = shell.attempt(command)
        self.assertEqual(0, ended.returncode, ended.stderr)
        for line in (
            "limits.max_total_bytes = 536870912  # limits.max_memory_bytes in rust.toml",
            'observability.log_level = "info"  # observability.rust_log in rust.toml',
            'http.cors_origins = ["https://app.example.com"]  # rust.toml',
        ):
            self.assertIn(line, ended.stdout.splitlines())
        listed = set(re.findall(r"(?m)^``([a-z_.]+)`` +no effect", PAGE.read_text()))
        warned = set(re.findall(r"Warning: ([a-z_.]+) has no effect", ended.stderr))
        self.assertEqual({name for name in listed if f"{name.rpartition('.')[2]} =" in settings}, warned)

    def test_an_unknown_name_is_refused(self) -> None:
        shell = Shell(Path(self.mktemp()).absolute())
        (shell.folder / "rust.toml").write_text("[limits]\nmax_stream_byte = 1\n")
        ended = shell.attempt("durable-streams-server config --config rust.toml")
        self.assertEqual(1, ended.returncode)
        self.assertIn("Did you mean limits.max_stream_bytes?", " ".join(ended.stderr.split()))


class DataTests(SynchronousTestCase):
    def test_a_data_directory_of_the_rust_server_is_refused_and_left_alone(self) -> None:
        for mode in ("file-durable", "file-fast", "acid"):
            folder = tempfile.TemporaryDirectory()
            self.addCleanup(folder.cleanup)
            stream = Path(folder.name, "ZGVtbw")
            stream.mkdir()
            (stream / "data.log").write_bytes(b"\x05\0\0\0hello")
            (stream / "meta.json").write_text('{"name":"demo"}')
            ended = subprocess.run(
                TWISTD,
                env=environment(free_port(), storage__mode=mode, storage__data_dir=folder.name),
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            self.assertEqual(1, ended.returncode, ended.stdout)
            self.assertIn("[open_storage]", ended.stderr)
            self.assertEqual(b"\x05\0\0\0hello", (stream / "data.log").read_bytes())


class ClientTests(SynchronousTestCase):
    def test_offsets_of_the_rust_server_are_refused_and_producers_begin_at_0(self) -> None:
        with Daemon() as daemon:
            daemon.create("moved", "application/json", b'[{"b": 1, "a": 1.50}]')
            for offset, status in (
                ("000000000000000a_00000000000000ff", 400),
                ("0000000000000001_0000000000000014", 410),
                ("0000000000000000_0000000000000000", 200),
            ):
                self.assertEqual(status, daemon.request("GET", f"/v1/stream/moved?offset={offset}")[0], offset)
            status, headers, _ = daemon.request(
                *("POST", "/v1/stream/moved", b"2"),
                content_type="application/json",
                producer_id="billing",
                producer_epoch="3",
                producer_seq="41",
            )
            self.assertEqual((409, "0"), (status, headers["producer-expected-seq"]))

    def test_the_answers_differ_as_the_page_says(self) -> None:
        with Daemon(http__cors_origins="https://app.example.com") as daemon:
            daemon.request(
                "PUT", "/v1/stream/a", b'[{"b": 1, "a": 1.50}]', content_type="application/json", stream_ttl="60"
            )
            _, headers, body = daemon.request("GET", "/v1/stream/a")
            self.assertEqual(b'[{"b": 1, "a": 1.50}]', body)
            self.assertRegex(headers["etag"], r'^"\d+:\d+:\d+"$')
            _, headers, _ = daemon.request("HEAD", "/v1/stream/a")
            self.assertEqual("60", headers["stream-ttl"])
            self.assertNotIn("stream-expires-at", headers)
            self.assertEqual(405, daemon.request("PATCH", "/v1/stream/a")[0])
            self.assertEqual(403, daemon.request("POST", "/v1/stream/a", b"1", origin="https://other.example")[0])
            self.assertEqual(
                415,
                daemon.request("POST", "/v1/stream/a", b"1", content_type="application/json", content_encoding="gzip")[
                    0
                ],
            )


class MoveTests(SynchronousTestCase):
    """The steps of the page with a document that the Rust server has written."""

    def test_the_import_has_every_stream_and_the_export_the_same_messages(self) -> None:
        _, _, export, importing, listing = blocks_of(PAGE)
        shell = Shell(Path(self.mktemp()).absolute())
        shutil.copy(CHECKOUT / "tests" / "transfer" / "rust-0.3.0.json", shell.folder / "streams.json")
        (shell.folder / "new.toml").write_text('[storage]\nmode = "file-durable"\ndata_dir = "data"\n')
        shell.run(importing)
        document = json.loads((shell.folder / "streams.json").read_text())
        names = [stream["name"] for stream in document["streams"]]
        self.assertGreater(len(names), 3)
        # The first command of the block lists the streams of the Rust server.
        listed = json.loads(shell.run(f"{listing.splitlines()[-1]} --json"))
        self.assertEqual(
            [(stream["name"], "closed" if stream["closed"] else "open") for stream in document["streams"]],
            [(stream["name"], stream["status"]) for stream in listed],
        )
        # A second import is refused, and changes nothing.
        self.assertEqual(1, shell.attempt(importing).returncode)
        back = (
            export.replace("/path/to/rust/", "").replace("rust.toml", "new.toml").replace("streams.json", "back.json")
        )
        shell.run(back)
        returned = json.loads((shell.folder / "back.json").read_text())
        for before, after in zip(document["streams"], returned["streams"], strict=True):
            self.assertEqual(
                [message["data_base64"] for message in before["messages"]],
                [message["data_base64"] for message in after["messages"]],
                before["name"],
            )
