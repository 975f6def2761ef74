"""docs/authentication.rst: its code is that of the example, and the example does what the page says."""

from __future__ import annotations

import re
import signal
import textwrap
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Final

from tests.support.daemon import CHECKOUT, PATIENCE

from .test_example import EXAMPLES, ExampleCase

PAGE: Final = (CHECKOUT / "docs" / "authentication.rst").read_text()
SOURCE: Final = (EXAMPLES / "authenticated.py").read_text()

BASIC: Final = {"Authorization": "Basic YWxpY2U6c2VjcmV0"}
WRONG: Final = {"Authorization": "Basic YWxpY2U6d3Jvbmc="}
ALICE: Final = {"Authorization": "Bearer token-of-alice"}
BOB: Final = {"Authorization": "Bearer token-of-bob"}
PREFLIGHT: Final = {"Origin": "https://page.example", "Access-Control-Request-Method": "PUT"}


class AuthenticationPageTests(ExampleCase):
    def setUp(self) -> None:
        program = self.run_program(str(EXAMPLES / "authenticated.py"), "0")
        self.program = program
        assert program.stdout is not None
        self.site = program.stdout.readline().strip()

    def status(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, bytes]:
        request = urllib.request.Request(
            self.site + path, body, {"Content-Type": "text/plain", **(headers or {})}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def test_the_code_of_the_page_is_the_examples(self) -> None:
        blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", PAGE)
        code = [textwrap.dedent(block).strip() for block in blocks if not block.startswith("    $")]
        of_example = [block for block in code if "access.changed()" not in block]
        self.assertEqual(4, len(of_example))
        for block in of_example:
            self.assertIn(block, SOURCE)

    def test_a_token_opens_the_streams_of_its_user(self) -> None:
        path = "streams/users/alice/b%20c"
        for headers, expected in ((None, 401), ({"Authorization": "Bearer x"}, 401), (BOB, 403), (ALICE, 201)):
            self.assertEqual(self.status("PUT", path, headers, b"hello")[0], expected)
        self.assertEqual(self.status("GET", path, ALICE), (200, b"hello"))
        self.assertEqual(self.status("GET", path, BOB)[0], 403)
        self.assertEqual(self.status("OPTIONS", path, PREFLIGHT)[0], 204)

    def test_editors_write_the_news_and_everybody_reads_them(self) -> None:
        for headers, expected in ((None, 401), (BOB, 403), (ALICE, 201)):
            self.assertEqual(self.status("PUT", "streams/news/today", headers, b"sun")[0], expected)
        self.assertEqual(self.status("GET", "streams/news/today"), (200, b"sun"))
        self.assertEqual(self.status("GET", "streams/news/today", {"Authorization": "Bearer x"})[0], 401)

    def test_a_password_opens_the_same_streams_in_klein(self) -> None:
        path = "app/streams/users/alice/notes"
        for headers, expected in ((None, 401), (WRONG, 401), (ALICE, 401), (BASIC, 201)):
            self.assertEqual(self.status("PUT", path, headers, b"hello")[0], expected)
        self.assertEqual(self.status("GET", "streams/users/alice/notes", ALICE), (200, b"hello"))

    def test_the_example_exits_without_an_error(self) -> None:
        status, output = self.stop(self.program, signal.SIGTERM)
        self.assertNotIn("Traceback", output)
        self.assertIn(status, (0, -signal.SIGTERM))
