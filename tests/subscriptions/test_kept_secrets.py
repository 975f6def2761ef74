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

from durable_streams.server.model import StorageLimits
from durable_streams.server.storage.acid import AcidStorage
from durable_streams.server.storage.file import FileStorage
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.subscriptions.errors import CorruptRecord, KeyRotationRefused
from durable_streams.server.subscriptions.kept_secrets import (
    MAX_RETIRED,
    REFRESH_SECONDS,
    SIGNING,
    TOKENS,
    Secrets,
    SigningKeyFileError,
    load_secrets,
    read_key_file,
)
from durable_streams.server.subscriptions.model import TokenClaims
from durable_streams.server.subscriptions.seams import KeyRotation

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

    def rotate(self, secrets: Secrets) -> KeyRotation:
        """Rotate the key."""
        return self.successResultOf(Deferred.fromCoroutine(secrets.rotate()))

    def refresh(self, secrets: Secrets) -> None:
        """Look whether another node has rotated the key."""
        self.successResultOf(Deferred.fromCoroutine(secrets.refresh()))

    def reload(self, secrets: Secrets) -> None:
        """Read the key file again."""
        self.successResultOf(Deferred.fromCoroutine(secrets.reload()))

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
        rotation = self.rotate(secrets)
        new = rotation.kid
        self.assertEqual((old, 1600.0), (rotation.previous_kid, rotation.previous_until))
        self.assertEqual((new, [new, old]), (secrets.kid, self.kids(secrets)))
        self.now += 599
        restarted = self.load()
        self.assertEqual((new, [new, old]), (restarted.kid, self.kids(restarted)))
        self.now += 1
        self.assertEqual([new], self.kids(restarted))

    def test_rotations_of_several_nodes_follow_each_other(self) -> None:
        secrets, other = self.load(), self.load()
        first = secrets.kid
        second = self.rotate(other).kid
        rotation = self.rotate(secrets)
        self.assertEqual(second, rotation.previous_kid)
        self.assertEqual([rotation.kid, second, first], self.kids(secrets))
        # The other node rotates between the read and the write.
        between: list[str] = []
        self.storage.before = lambda: between.append(self.rotate(self.load()).kid)
        last = self.rotate(secrets)
        self.assertEqual(between, [last.previous_kid])
        self.assertEqual([last.kid, *between, rotation.kid, second, first], self.kids(secrets))
        self.assertEqual((last.kid, self.kids(secrets)), (self.load().kid, self.kids(self.load())))

    def test_a_rotation_that_others_are_always_ahead_of_is_refused(self) -> None:
        secrets = self.load()

        def rotate_other() -> None:
            self.storage.write_values({SIGNING: self.load_and_rotate()}, {})
            self.storage.before = rotate_other

        self.storage.before = rotate_other
        before = secrets.kid
        failure = self.failureResultOf(Deferred.fromCoroutine(secrets.rotate()), KeyRotationRefused)
        self.assertIn("Try again later", str(failure.value))
        self.assertNotEqual(before, secrets.kid)

    def load_and_rotate(self) -> bytes:
        """Return the stored keys after a rotation by a node with another storage of the same keys."""
        other = MemoryStorage()
        other.write_values(self.stored(), {})
        secrets = self.successResultOf(Deferred.fromCoroutine(load_secrets(other, lambda: self.now)))
        self.rotate(secrets)
        return dict(other.values())[SIGNING]

    def test_another_nodes_rotation_is_taken_over_within_a_second(self) -> None:
        secrets, other = self.load(), self.load()
        old, new = secrets.kid, self.rotate(other).kid
        self.now += REFRESH_SECONDS - 0.1
        self.refresh(secrets)
        self.assertEqual((old, [old]), (secrets.kid, self.kids(secrets)))
        self.now += 0.1
        self.refresh(secrets)
        self.assertEqual((new, [new, old]), (secrets.kid, self.kids(secrets)))
        self.assertIn(f"kid={new},", secrets.sign(b"{}"))

    def test_a_clock_that_was_set_back_does_not_delay_the_next_look(self) -> None:
        secrets, other = self.load(), self.load()
        new = self.rotate(other).kid
        self.now -= 500
        self.refresh(secrets)
        self.assertEqual(new, secrets.kid)

    def test_keys_that_cannot_be_read_again_stay_as_they_were_and_are_logged_once(self) -> None:
        secrets = self.load()
        kid = secrets.kid
        self.storage.write_values({SIGNING: b"damaged"}, {})
        with capturedLogs() as events:
            for _ in range(3):
                self.now += REFRESH_SECONDS
                self.refresh(secrets)
        self.assertEqual((kid, [kid]), (secrets.kid, self.kids(secrets)))
        (text,) = [formatEvent(event) for event in events]
        self.assertIn("The stored record secrets/signing can't be read: it is damaged", text)
        failure = self.failureResultOf(Deferred.fromCoroutine(secrets.rotate()), KeyRotationRefused)
        self.assertIn("The stored record secrets/signing can't be read", str(failure.value))
        self.storage.write_values({SIGNING: None}, {})
        self.now += REFRESH_SECONDS
        self.refresh(secrets)
        self.assertEqual(kid, secrets.kid)

    def test_more_rotations_than_the_set_has_room_for_have_to_wait(self) -> None:
        secrets = self.load()
        for _ in range(MAX_RETIRED):
            self.now += 1
            self.rotate(secrets)
        kids = self.kids(secrets)
        failure = self.failureResultOf(Deferred.fromCoroutine(secrets.rotate()), KeyRotationRefused)
        self.assertIn("rotated 16 times within 10 minutes", str(failure.value))
        self.assertEqual((kids, MAX_RETIRED + 1), (self.kids(secrets), len(kids)))
        self.now += 600
        self.rotate(secrets)

    def test_the_key_of_another_nodes_file_joins_the_set_and_is_not_rotated(self) -> None:
        secrets = self.load()
        own = secrets.kid
        from_file = self.load(self.key_file())
        self.now += REFRESH_SECONDS
        self.refresh(secrets)
        self.assertEqual((own, [own, from_file.kid]), (secrets.kid, self.kids(secrets)))
        failure = self.failureResultOf(Deferred.fromCoroutine(secrets.rotate()), KeyRotationRefused)
        self.assertIn("Set subscriptions.signing_key_file on all nodes, or on none", str(failure.value))
        self.assertEqual([from_file.kid, own], self.kids(self.load(str(self.folder / "key.pem"))))

    def test_nodes_with_different_key_files_publish_each_others_and_write_nothing(self) -> None:
        first, second = self.load(self.key_file("1")), self.load(self.key_file("2"))
        stored = self.stored()
        self.now += REFRESH_SECONDS
        for secrets in (first, second):
            self.refresh(secrets)
            self.assertLessEqual({first.kid, second.kid}, set(self.kids(secrets)))
        self.assertEqual(stored, self.stored())

    def test_a_replaced_key_file_is_used_after_a_reload(self) -> None:
        path = self.key_file()
        secrets = self.load(path)
        old = secrets.kid
        self.key_file()
        self.reload(secrets)
        self.assertNotEqual(old, secrets.kid)
        self.assertEqual([secrets.kid, old], self.kids(secrets))
        self.assertEqual(secrets.kid, self.load(path).kid)

    def test_a_key_file_that_cannot_be_used_keeps_the_key_at_a_reload(self) -> None:
        secrets = self.load(self.key_file())
        kid = secrets.kid
        self.key_file(mode=0o644)
        with capturedLogs() as events:
            self.reload(secrets)
        self.assertEqual((kid, [kid]), (secrets.kid, self.kids(secrets)))
        (text,) = [formatEvent(event) for event in events]
        self.assertIn("Reload: the signing key of webhooks stays as it was. ", text)
        self.assertIn("Set its mode to 0600.", text)

    def test_a_reload_without_a_key_file_changes_nothing(self) -> None:
        secrets = self.load()
        kid = secrets.kid
        self.reload(secrets)
        self.assertEqual((kid, [kid]), (secrets.kid, self.kids(secrets)))

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
        failure = self.failureResultOf(Deferred.fromCoroutine(secrets.rotate()), KeyRotationRefused)
        self.assertIn("Replace the file and send the server SIGHUP", str(failure.value))

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
