"""The file of bearer tokens."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.web.pages import PageRequest
from durable_streams.server.web.site.admin.tokens import MAX_SIZE, TokenFile, TokenFileError

ONE = "0123456789abcdef"
OTHER = "fedcba9876543210+/"


def asking(authorization: str | None) -> PageRequest:
    """Make a request with a value of Authorization."""
    fields = [] if authorization is None else [(b"Authorization", authorization.encode("latin-1"))]
    return PageRequest(b"GET", b"/admin/x", fields)


class TokenCase(SynchronousTestCase):
    def file(self, text: str, mode: int = 0o600) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def refusal(self, path: str) -> str:
        return str(self.assertRaises(TokenFileError, TokenFile, path))


class AuthorizeTests(TokenCase):
    def test_each_token_of_the_file_is_accepted(self) -> None:
        tokens = TokenFile(self.file(f"# ops\n\n{ONE}\n  {OTHER}\t\r\n"))
        self.assertEqual(tokens.count, 2)
        for text in (f"Bearer {ONE}", f"bearer  {OTHER} ", f"BEARER {ONE}"):
            self.assertTrue(tokens.authorize(asking(text)), text)

    def test_a_missing_or_malformed_token_is_asked_for(self) -> None:
        tokens = TokenFile(self.file(ONE))
        for text in (None, "", ONE, f"Basic {ONE}", "Bearer", "Bearer ", f"Bearer {ONE} x", f"Bearer{ONE}"):
            error = self.assertRaises(NotAuthenticated, tokens.authorize, asking(text))
            self.assertEqual(error.challenge, 'Bearer realm="durable-streams admin"', text)

    def test_a_wrong_token_is_named_as_invalid_and_not_repeated(self) -> None:
        tokens = TokenFile(self.file(f"#{OTHER}x\n{ONE}"))
        for text in (
            f"Bearer {ONE}x",
            f"Bearer {ONE[:-1]}",
            f"Bearer {OTHER}x",
            f"Bearer {ONE.upper()}",
            f"Bearer {ONE}=",
        ):
            error = self.assertRaises(NotAuthenticated, tokens.authorize, asking(text))
            self.assertIn('error="invalid_token"', error.challenge)
            self.assertNotIn(text[7:], str(error) + error.challenge)

    @given(st.from_regex(r"[A-Za-z0-9._~+/-]{16,40}=*", fullmatch=True), st.text(max_size=60))
    def test_any_token_is_accepted_and_any_other_text_is_not(self, token: str, other: str) -> None:
        tokens = TokenFile(self.file(token))
        self.assertTrue(tokens.authorize(asking(f"Bearer {token}")))
        if other.strip() != token:
            text = f"Bearer {other}".encode("utf-8", "replace").decode("latin-1")
            self.assertRaises(NotAuthenticated, tokens.authorize, asking(text))


class FileTests(TokenCase):
    def test_a_file_that_others_can_use_is_refused(self) -> None:
        for mode in (0o640, 0o604, 0o660, 0o610, 0o644, 0o777):
            path = self.file(ONE, mode)
            message = self.refusal(path)
            self.assertIn(f"its mode is {mode:04o}. Run: chmod 600 {path}", message)
        for mode in (0o600, 0o400, 0o700):
            self.assertEqual(TokenFile(self.file(ONE, mode)).count, 1)

    def test_a_missing_file_and_what_is_no_file_are_refused(self) -> None:
        self.assertIn("No such file", self.refusal("/nonexistent/tokens"))
        self.assertIn("is not a file", self.refusal(os.getcwd()))
        fifo = self.mktemp()
        os.mkfifo(fifo, 0o600)
        self.addCleanup(os.remove, fifo)
        self.assertIn("is not a file", self.refusal(fifo))

    def test_a_file_without_tokens_and_one_that_is_too_large_are_refused(self) -> None:
        self.assertIn("has no token", self.refusal(self.file("# none\n\n")))
        self.assertIn("is larger than", self.refusal(self.file(f"{ONE}\n" * (MAX_SIZE // 16))))

    def test_a_line_that_is_no_token_is_named_by_its_number_only(self) -> None:
        for line in ("secret", "secret of two words", "sécret-0123456789", "=secret-0123456789"):
            message = self.refusal(self.file(f"{ONE}\n{line}\n"))
            self.assertTrue(message.startswith("Line 2 of "), message)
            self.assertNotIn("cret", message)

    def test_a_link_to_a_file_is_followed(self) -> None:
        link = self.mktemp()
        os.symlink(self.file(ONE), link)
        self.assertEqual(TokenFile(link).count, 1)

    def test_reloading_replaces_the_tokens_and_keeps_them_after_an_error(self) -> None:
        path = self.file(ONE)
        tokens = TokenFile(path)
        Path(path).write_text(OTHER)
        self.assertTrue(tokens.authorize(asking(f"Bearer {ONE}")))
        tokens.reload()
        self.assertRaises(NotAuthenticated, tokens.authorize, asking(f"Bearer {ONE}"))
        self.assertTrue(tokens.authorize(asking(f"Bearer {OTHER}")))
        os.chmod(path, 0o644)
        self.assertRaises(TokenFileError, tokens.reload)
        self.assertTrue(tokens.authorize(asking(f"Bearer {OTHER}")))

    def test_a_relative_path_is_found_after_a_change_of_directory(self) -> None:
        path = self.file(ONE)
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(os.path.dirname(path))
        tokens = TokenFile(os.path.basename(path))
        os.chdir("/")
        tokens.reload()
        self.assertEqual(tokens.count, 1)

    def test_the_tokens_are_not_kept(self) -> None:
        self.assertNotIn(ONE, repr(vars(TokenFile(self.file(ONE)))))
