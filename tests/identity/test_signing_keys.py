"""The file of keys that sign URLs."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.signed_urls import SigningKey
from durable_streams.server.identity.signing_keys import (
    MAX_FILE_SIZE,
    SigningKeysError,
    fingerprint_of,
    load_signing_keys,
    new_signing_key,
    parse_signing_keys,
    with_key,
    without_key,
)

SECRET = "0123456789abcdef0123456789abcdef"


class ParseTests(SynchronousTestCase):
    def test_the_keys_are_in_the_order_of_the_file(self) -> None:
        keys = parse_signing_keys(f"# a comment\n\nk2 {SECRET}\r\n  k1\t{SECRET}x \n".encode(), "FILE")
        self.assertEqual(("k2", "k1"), tuple(key.id for key in keys))
        self.assertEqual(SECRET.encode() + b"x", keys[1].secret)

    def test_a_file_without_keys_is_valid(self) -> None:
        self.assertEqual((), parse_signing_keys(b"", "FILE"))
        self.assertEqual((), parse_signing_keys(b"# none\n", "FILE"))

    def test_malformed_lines_are_named_by_their_number_without_their_text(self) -> None:
        for content, reason in (
            (f"k1 {SECRET}\n{SECRET}\n", "line 2"),
            (f"k1 {SECRET} more\n", "line 1"),
            (f"k/1 {SECRET}\n", "line 1"),
            (f"{'k' * 65} {SECRET}\n", "line 1"),
            (f"k1 {SECRET[:-1]}\n", "32 to 1024"),
            (f"k1 {SECRET * 40}\n", "32 to 1024"),
            (f"k1 é{SECRET}\n", "ASCII"),
            (f"k1 {SECRET}\nk1 {SECRET}x\n", "line 2: there is another key with the id k1"),
        ):
            error = self.assertRaises(SigningKeysError, parse_signing_keys, content.encode(), "FILE")
            self.assertIn(reason, str(error))
            self.assertNotIn(SECRET[:16], str(error))

    def test_added_keys_are_parsed_again_the_last_one_first(self) -> None:
        keys = (new_signing_key("k2"), SigningKey("k1", SECRET.encode()))
        content = with_key(with_key(b"", keys[1]), keys[0])
        self.assertEqual(keys, parse_signing_keys(content, "FILE"))
        self.assertEqual((), parse_signing_keys(without_key(without_key(content, "k1"), "k2"), "FILE"))

    def test_new_keys_have_secrets_of_256_random_bits(self) -> None:
        secrets = {new_signing_key("k").secret for _ in range(10)}
        self.assertEqual((10, {43}), (len(secrets), {len(secret) for secret in secrets}))

    def test_fingerprints_differ_by_secret_and_do_not_show_it(self) -> None:
        one, other = SigningKey("k", SECRET.encode()), SigningKey("k", SECRET.encode() + b"x")
        self.assertNotEqual(fingerprint_of(one), fingerprint_of(other))
        self.assertRegex(fingerprint_of(one), r"\A[0-9a-f]{16}\Z")


class LoadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()

    def write(self, content: bytes, mode: int = 0o600) -> None:
        with open(self.path, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)

    def refused(self, reason: str) -> None:
        error = self.assertRaises(SigningKeysError, load_signing_keys, self.path)
        self.assertIn(reason, str(error))
        self.assertIn(self.path, str(error))

    def test_a_file_of_its_owner_is_read(self) -> None:
        self.write(f"k1 {SECRET}\n".encode())
        self.assertEqual((SigningKey("k1", SECRET.encode()),), load_signing_keys(self.path))

    def test_a_file_that_others_may_read_is_refused(self) -> None:
        self.write(f"k1 {SECRET}\n".encode(), 0o640)
        self.refused("its mode is 0640, so that other users can read the keys or change them. Run chmod 600")

    def test_missing_large_and_special_files_are_refused(self) -> None:
        self.refused("No such file or directory. Make it with: durable-streams-server signing-key add --key-file")
        self.write(b"#" * (MAX_FILE_SIZE + 1))
        self.refused("larger than 65536 bytes")
        os.unlink(self.path)
        os.mkdir(self.path)
        self.refused("not a regular file")
