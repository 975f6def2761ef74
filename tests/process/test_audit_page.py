"""docs/audit.rst: its commands work."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from tests.support.daemon import CHECKOUT, free_port
from tests.support.process_case import ProcessTestCase, wait_for
from tests.support.programs import program
from tests.support.shell import Shell, blocks_of

PAGE: Final = CHECKOUT / "docs" / "audit.rst"


class PageTests(ProcessTestCase):
    def setUp(self) -> None:
        super().setUp()
        program("curl")
        program("jq")
        port = free_port()
        self.place = self.folder / "page"
        self.shell = Shell(
            self.place, {"localhost:4437": f"localhost:{port}"}, {"DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{port}"}
        )
        self.lookup = f'url=http://localhost:{port}/v1/stream backend="Authorization: Bearer $(cat backend.token)"\n'

    def lines(self, name: str = "audit.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.place / name).read_text().splitlines()]

    def test_every_command_of_the_page_works(self) -> None:
        start, requests, changes, denials, read, request, rotate = blocks_of(PAGE)
        self.addCleanup(self.shell.stop_daemon)
        self.shell.run(start)
        log = self.place / "twistd.log"
        wait_for(lambda: log.exists() and "is ready" in log.read_text(), "the start")
        self.assertEqual("onetwo", self.shell.run(requests))
        wait_for(lambda: len(self.lines()) == 6, "the lines of the requests")
        rows = [line.split("\t")[1:] for line in self.shell.run(changes).splitlines()]
        self.assertEqual([["backend", "create", "201"], ["backend", "append", "204"]], rows)
        rows = sorted(line.split() for line in self.shell.run(denials).splitlines())
        self.assertEqual([["1", "-", "-", "credentials"], ["1", "guest", "read", "default"]], rows)
        sizes = {row["subject"]: row["bytes"] for row in json.loads(self.shell.run(read)) if row["subject"]}
        self.assertEqual(6, sizes["backend"])
        [line] = self.shell.run(self.lookup + request).splitlines()
        self.assertEqual(("orders/1", 200), (json.loads(line)["stream"], json.loads(line)["status"]))
        self.shell.run(rotate)
        wait_for(lambda: "Reloaded" in log.read_text(), "the reload")
        self.assertEqual(7, len(self.lines("audit.jsonl.1")))
        self.check_fields(self.lines("audit.jsonl.1"))
        self.assertNotIn("Traceback", log.read_text())
        self.shell.stop_daemon()
        self.assertEqual(["closed"], [each["event"] for each in self.lines()])

    def check_fields(self, lines: list[dict[str, Any]]) -> None:
        """Check that the page has every field of some lines."""
        described = set(re.findall(r"(?m)^``([a-z_]+)`` ", PAGE.read_text()))
        self.assertEqual(set(), {field for line in lines for field in line} - described - {"process"})

    def test_the_page_names_settings_that_exist(self) -> None:
        reference = (CHECKOUT / "docs" / "configuration.rst").read_text()
        named = set(re.findall(r"``(audit\.[a-z_]+)", PAGE.read_text()))
        self.assertEqual({"audit.events", "audit.file", "audit.required"}, named)
        for name in named:
            self.assertIn(f"``{name}``", reference)
