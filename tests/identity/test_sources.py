"""The file of signing keys: when it is read, and the checker of signed URLs that has its keys."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.identity.credentials import SignedUrlCredentials
from durable_streams.server.identity.principal import Principal
from durable_streams.server.identity.signed_urls import SigningKey, sign
from durable_streams.server.identity.signing_keys import SigningKeysError, with_key
from durable_streams.server.identity.sources import SigningKeysSource
from tests.support.clocks import SteppedClock

NOW = 1_767_225_600
OLD = SigningKey("old", b"0123456789abcdef0123456789abcdef")
NEW = SigningKey("new", b"fedcba9876543210fedcba9876543210")


class SigningKeysSourceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SteppedClock()
        self.clock.advance(NOW)
        self.path = Path(self.mktemp())
        self.path.touch(0o600)

    def source(self) -> SigningKeysSource:
        source = SigningKeysSource(str(self.path), self.clock)
        self.addCleanup(source.stop)
        return source

    def check(self, source: SigningKeysSource, key: SigningKey) -> Principal:
        query = sign(key, "read", b"chats/a", NOW + 60)
        return source.checker.requestAvatarId(SignedUrlCredentials(query.encode(), b"chats/a", b"GET"))

    def assert_refused(self, source: SigningKeysSource, key: SigningKey) -> None:
        error = self.assertRaises(NotAuthenticated, self.check, source, key)
        self.assertIn('error="invalid_token"', error.challenge)

    def test_the_file_is_read_at_the_start_and_at_each_reload(self) -> None:
        self.path.write_bytes(with_key(b"", OLD))
        source = self.source()
        self.assert_refused(source, NEW)
        self.path.write_bytes(with_key(with_key(b"", OLD), NEW))
        self.assertTrue(self.successResultOf(source.reload()))
        self.check(source, NEW)
        self.assertEqual(["new", "old"], list(source.listed))

    def test_a_missing_file_is_refused_at_the_start(self) -> None:
        self.path.unlink()
        self.assertRaises(SigningKeysError, SigningKeysSource, str(self.path), self.clock)

    def test_a_file_that_cannot_be_read_leaves_the_keys_as_they_were(self) -> None:
        self.path.write_bytes(with_key(b"", OLD))
        source = self.source()
        os.chmod(self.path, 0o644)
        self.assertFalse(self.successResultOf(source.reload()))
        self.assertTrue(source.stale)
        self.check(source, OLD)

    def test_a_file_without_keys_accepts_no_url(self) -> None:
        self.assert_refused(self.source(), OLD)

    def test_a_relative_path_becomes_absolute(self) -> None:
        relative = os.path.relpath(self.path)
        self.assertEqual((os.path.abspath(relative),), SigningKeysSource(relative, self.clock).files)
