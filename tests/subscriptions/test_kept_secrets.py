"""The secrets in a storage: made once, kept, and never replaced silently."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.errors import ValuesChanged
from durable_streams.server.model import StorageLimits
from durable_streams.server.storage.acid import AcidStorage
from durable_streams.server.storage.file import FileStorage
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.subscriptions.errors import CorruptRecord
from durable_streams.server.subscriptions.kept_secrets import (
    SIGNING,
    TOKENS,
    Secrets,
    SigningKeyFileError,
    load_secrets,
    read_key_file,
)
from durable_streams.server.subscriptions.model import TokenClaims

CLAIMS = TokenClaims("s1", 1, "w_1")


class RacedStorage(MemoryStorage):
    """A storage that another node writes to just before each write."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], object] = lambda: None

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> None:
        before, self.before = self.before, lambda: None
        before()
        super().write_values(puts, expected)


class KeptSecretsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.storage = RacedStorage()
        self.now = 1000.0
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def load(self, key_file: str | None = None) -> Secrets:
        """Load the secrets."""
        return self.successResultOf(Deferred.fromCoroutine(load_secrets(self.storage, lambda: self.now, key_file)))

    def error(self, key_file: str | None = None) -> Exception:
        """Return the error of a load that fails."""
        failure = self.failureResultOf(Deferred.fromCoroutine(load_secrets(self.storage, lambda: self.now, key_file)))
        assert isinstance(failure.value, Exception)
        return failure.value

    def key_file(self, name: str = "key.pem", key: object = None, mode: int = 0o600) -> str:
        """Write a key file. Return its path."""
        made: object = Ed25519PrivateKey.generate() if key is None else key
        pem: bytes = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[attr-defined]
        path = self.folder / name
        path.write_bytes(pem)
        path.chmod(mode)
        return str(path)

    def kids(self, secrets: Secrets) -> list[str]:
        """Return the ids in the key set."""
        return [key["kid"] for key in json.loads(secrets.jwks())["keys"]]

    def stored(self) -> dict[str, bytes]:
        return dict(self.storage.values())

    def test_secrets_are_made_once_and_kept(self) -> None:
        first = self.load()
        token, kept = first.tokens.issue(CLAIMS), self.stored()
        self.now += 1_000_000
        second = self.load()
        self.assertEqual((first.kid, kept), (second.kid, self.stored()))
        self.assertEqual(CLAIMS, second.tokens.verify(token, "s1"))
        self.assertEqual([first.kid], self.kids(second))
        self.assertTrue(second.sign(b"{}").startswith(f"t=1001000,kid={first.kid},ed25519="))
        self.assertEqual([SIGNING, TOKENS], sorted(kept))

    def test_secrets_of_two_storages_differ(self) -> None:
        first = self.load()
        self.storage = RacedStorage()
        second = self.load()
        self.assertNotEqual(first.kid, second.kid)
        self.assertNotEqual(first.tokens.issue(CLAIMS), second.tokens.issue(CLAIMS))

    def test_nodes_that_start_at_once_have_the_same_secrets(self) -> None:
        others: list[Secrets] = []
        self.storage.before = lambda: others.append(self.load())
        secrets = self.load()
        self.assertEqual(others[0].kid, secrets.kid)
        self.assertEqual(others[0].tokens.issue(CLAIMS), secrets.tokens.issue(CLAIMS))

    def test_no_log_line_has_a_secret(self) -> None:
        with capturedLogs() as events:
            secrets = self.load()
            self.successResultOf(Deferred.fromCoroutine(secrets.rotate()))
        fields = msgspec.msgpack.decode(self.stored()[SIGNING])
        for text in [repr(event) + formatEvent(event) for event in events]:
            self.assertNotIn(fields[1].hex(), text)
            self.assertNotIn(repr(fields[1]), text)

    def test_rotation_keeps_the_old_public_key_for_ten_minutes(self) -> None:
        secrets = self.load()
        old = secrets.kid
        new = self.successResultOf(Deferred.fromCoroutine(secrets.rotate()))
        self.assertEqual((new, [new, old]), (secrets.kid, self.kids(secrets)))
        self.now += 599
        restarted = self.load()
        self.assertEqual((new, [new, old]), (restarted.kid, self.kids(restarted)))
        self.now += 1
        self.assertEqual([new], self.kids(restarted))

    def test_a_rotation_that_another_node_was_ahead_of_changes_nothing(self) -> None:
        secrets, other = self.load(), self.load()
        new = self.successResultOf(Deferred.fromCoroutine(other.rotate()))
        before = secrets.kid
        self.failureResultOf(Deferred.fromCoroutine(secrets.rotate()), ValuesChanged)
        self.assertEqual((before, new), (secrets.kid, self.load().kid))

    def test_a_key_file_replaces_the_stored_key_and_the_reverse(self) -> None:
        stored = self.load()
        path = self.key_file()
        from_file = self.load(path)
        self.assertEqual([from_file.kid, stored.kid], self.kids(from_file))
        self.assertEqual(from_file.kid, self.load(path).kid)
        # The private key is in one place only.
        self.assertIsNone(msgspec.msgpack.decode(self.stored()[SIGNING])[1])
        other = self.load(self.key_file("other.pem"))
        self.assertEqual([other.kid, from_file.kid, stored.kid], self.kids(other))
        made = self.load()
        self.assertNotIn(made.kid, (stored.kid, from_file.kid, other.kid))
        self.assertEqual([made.kid, other.kid, from_file.kid, stored.kid], self.kids(made))
        self.now += 600
        self.assertEqual([made.kid], self.kids(self.load()))

    def test_a_key_of_a_file_is_rotated_by_its_file(self) -> None:
        secrets = self.load(self.key_file())
        failure = self.failureResultOf(Deferred.fromCoroutine(secrets.rotate()), SigningKeyFileError)
        self.assertIn("Replace the file and restart", str(failure.value))

    def test_key_files_that_cannot_be_used_end_the_start_with_a_sentence(self) -> None:
        missing = str(self.folder / "missing.pem")
        for path, part in (
            (missing, "No such file or directory"),
            (str(self.folder), "is not a file"),
            (self.key_file("group", mode=0o640), "mode 0640"),
            (self.key_file("world", mode=0o604), "mode 0604"),
            (self.key_file("written", mode=0o620), "Set its mode to 0600"),
            (self.key_file("ec", generate_private_key(SECP256R1())), "not an Ed25519 key"),
        ):
            self.load()
            error, before = self.error(path), self.stored()
            self.assertIsInstance(error, SigningKeyFileError)
            self.assertIn(part, str(error))
            self.assertIn(f"{path} (subscriptions.signing_key_file)", str(error))
            self.assertEqual(before, self.stored())

    def test_a_pipe_as_key_file_does_not_block(self) -> None:
        path = str(self.folder / "pipe")
        os.mkfifo(path, 0o600)
        self.assertRaises(SigningKeyFileError, read_key_file, path)

    def test_damaged_secrets_end_the_start_and_are_not_replaced(self) -> None:
        self.load()
        good = self.stored()
        signing = msgspec.msgpack.decode(good[SIGNING])
        encode = msgspec.msgpack.encode
        for key, value in (
            (SIGNING, b""),
            (SIGNING, b"\xc1"),
            (SIGNING, good[SIGNING][:-1]),
            (SIGNING, encode([2, *signing[1:]])),
            (SIGNING, encode([1, signing[1][:31], *signing[2:]])),
            (SIGNING, encode([1, bytes(32), *signing[2:]])),
            (SIGNING, encode([1, None, b"", []])),
            (TOKENS, b""),
            (TOKENS, encode([1, b"short"])),
            (TOKENS, encode([1, 5])),
            (TOKENS, encode([2, bytes(32)])),
            (TOKENS, encode([])),
        ):
            self.storage.write_values({**good, key: value}, {})
            error = self.error()
            self.assertIsInstance(error, CorruptRecord)
            self.assertIn(f"The stored record {key} can't be read", str(error))
            self.assertEqual(value, self.stored()[key])

    def test_each_flipped_bit_of_the_private_key_is_noticed(self) -> None:
        self.load()
        good = self.stored()[SIGNING]
        seed = msgspec.msgpack.decode(good)[1]
        for index in range(256):
            flipped = bytearray(seed)
            flipped[index // 8] ^= 1 << index % 8
            self.storage.write_values({SIGNING: good.replace(seed, bytes(flipped))}, {})
            self.assertIsInstance(self.error(), CorruptRecord)


class DurableSecretsTests(TestCase):
    async def check(self, kind: type[FileStorage] | type[AcidStorage]) -> None:
        """Assert that secrets survive a restart, in files that their owner alone can read."""
        directory = Path(self.mktemp())
        kids, tokens = set(), set()
        for _ in range(2):
            storage = kind(directory, reactor, StorageLimits())
            storage.open()
            secrets = await load_secrets(storage, lambda: 1000.0)
            kids.add(secrets.kid)
            tokens.add(secrets.tokens.issue(CLAIMS))
            paths = [directory, *directory.rglob("*")]
            self.assertEqual([], [path for path in paths if path.is_file() and path.stat().st_mode & 0o077])
            self.assertEqual(0o700, directory.stat().st_mode & 0o777)
            await storage.close()
        self.assertEqual((1, 1), (len(kids), len(tokens)))

    async def test_secrets_survive_a_restart_of_the_file_storage(self) -> None:
        await self.check(FileStorage)

    async def test_secrets_survive_a_restart_of_the_acid_storage(self) -> None:
        await self.check(AcidStorage)
