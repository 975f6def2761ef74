"""docs/tokens.rst: its commands work, from the first token to its revocation."""

from __future__ import annotations

import json
import re
import stat
from typing import Final

from durable_streams.server.identity.tokens.records import TokenRecord
from tests.support.daemon import CHECKOUT, free_port
from tests.support.process_case import ProcessTestCase, wait_for
from tests.support.programs import program
from tests.support.shell import Shell, blocks_of

PAGE: Final = CHECKOUT / "docs" / "tokens.rst"


class PageTests(ProcessTestCase):
    def setUp(self) -> None:
        super().setUp()
        program("curl")
        self.port = free_port()
        self.page = self.folder / "page"
        self.shell = Shell(
            self.page,
            {"localhost:4437": f"localhost:{self.port}"},
            {"DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{self.port}"},
        )

    def test_every_command_of_the_page_works(self) -> None:
        settings, create, start, write, read, refused, listed, revoke, line = blocks_of(PAGE)
        self.shell.run(settings)
        self.shell.run(create)
        for name in ("config/tokens", "backend.token", "dashboard.token"):
            self.assertEqual(0o600, stat.S_IMODE((self.page / name).stat().st_mode), name)
        self.addCleanup(self.shell.stop_daemon)
        self.assertIn("Would listen on", self.shell.run(start))
        log = self.page / "twistd.log"
        wait_for(lambda: log.exists() and f":{self.port}" in log.read_text(), "the start of the daemon")
        self.shell.run(write)
        self.assertEqual("all is well", self.shell.run(read))
        self.assertEqual("401\n401\n403\n", self.shell.run(refused))
        self.assertRegex(self.shell.run(listed), r"(?s)backend  .*writers.*never\ndashboard|dashboard .*20")
        self.assertRegex(self.shell.run(revoke), r"^Revoked token \w{12} of backend\.\n$")
        put = next(line for line in write.splitlines() if "PUT" in line)
        status = f'auth="Authorization: Bearer $(cat backend.token)"; {put} -o answer -w "%{{http_code}}"'
        wait_for(lambda: self.shell.attempt(status).stdout == "401", "the end of the revoked token")
        self.assertEqual("all is well", self.shell.run(read))
        self.assertEqual(set(json.loads(line)) - set(TokenRecord.__struct_fields__), set())
        self.assert_no_secret_in(log.read_text())

    def assert_no_secret_in(self, text: str) -> None:
        self.assertNotIn("Traceback", text)
        for name in ("backend.token", "dashboard.token"):
            self.assertNotIn((self.page / name).read_text().strip().split("_")[2], text)

    def test_the_page_names_settings_that_exist(self) -> None:
        reference = (CHECKOUT / "docs" / "configuration.rst").read_text()
        named = set(re.findall(r"``((?:auth|quotas)\.[a-z_.]+)``", PAGE.read_text()))
        self.assertTrue(named)
        for name in named:
            self.assertIn(f"``{name}``", reference)
