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
READER: Final = {"Authorization": "Bearer a token that may read"}
WRITER: Final = {"Authorization": "Bearer a token that may also write"}
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
        self.assertEqual(5, len(code))
        for block in code:
            self.assertIn(block, SOURCE)

    def test_guard_asks_for_a_password_and_lets_preflights_pass(self) -> None:
        self.assertEqual(self.status("PUT", "private/a/b%20c", None, b"x")[0], 401)
        self.assertEqual(self.status("PUT", "private/a/b%20c", BASIC, b"hello")[0], 201)
        self.assertEqual(self.status("GET", "private/a/b%20c", BASIC), (200, b"hello"))
        self.assertEqual(self.status("OPTIONS", "private/a/b%20c", PREFLIGHT)[0], 204)

    def test_klein_checks_the_token_of_each_method_and_lets_preflights_pass(self) -> None:
        path = "app/streams/a/b%20c"
        for headers, expected in ((None, 401), (READER, 401), (WRITER, 201)):
            self.assertEqual(self.status("PUT", path, headers, b"hello")[0], expected)
        self.assertEqual(self.status("GET", path)[0], 401)
        self.assertEqual(self.status("GET", path, READER), (200, b"hello"))
        self.assertEqual(self.status("OPTIONS", path, PREFLIGHT)[0], 204)

    def test_a_token_may_be_in_a_cookie_or_in_the_query(self) -> None:
        self.assertEqual(self.status("PUT", "app/streams/a", WRITER, b"hello")[0], 201)
        token = "a%20token%20that%20may%20read"
        self.assertEqual(self.status("GET", f"app/streams/a?offset=-1&token={token}"), (200, b"hello"))
        self.assertEqual(self.status("GET", "app/streams/a", {"Cookie": "token=a token that may read"})[0], 200)
        self.assertEqual(self.status("GET", "app/streams/a?offset=-1&token=other")[0], 401)

    def test_the_example_exits_without_an_error(self) -> None:
        status, output = self.stop(self.program, signal.SIGTERM)
        self.assertNotIn("Traceback", output)
        self.assertIn(status, (0, -signal.SIGTERM))
