"""The two secrets of subscriptions: the key that signs webhooks, and the secret of the tokens. Both are made once.

They are values of the storage, beside the records of subscriptions: one atomic write makes them, whatever the storage;
nodes with one storage have the same ones; a crash or a second node can't leave two; and files of a data directory can
be read by their owner alone (0600 in 0700). In memory they last as long as the process. Backups and exports have none.

===============  ===================================================
key              value
===============  ===================================================
secrets/signing  the private key, the public keys that were retired
secrets/tokens   the secret of the tokens
===============  ===================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from secrets import token_bytes
from typing import Final, Protocol, TypeVar

import msgspec
from msgspec import Struct
from twisted.logger import Logger

from ..errors import StreamsError, ValuesChanged
from ..interfaces import NowOrLater, settle
from ..regular_files import NotAFileError
from ..secret_files import SharedFileError, read_secret_file
from .errors import CorruptRecord, KeyRotationRefused
from .records import SECRETS
from .seams import KeyRotation
from .signing import RETIREMENT_SECONDS, KeyRing, RetiredKey, SigningKey, retired
from .tokens import SECRET_BYTES, Tokens

SIGNING: Final = "secrets/signing"
TOKENS: Final = "secrets/tokens"

#: The version of the stored form.
VERSION: Final = 1

_SEED_BYTES: Final = 32
_MAX_FILE_BYTES: Final = 65_536

#: How often a write is tried again that another node was ahead of.
_MAX_TRIES: Final = 10

#: The interval between two looks whether another node has rotated the key, in seconds.
REFRESH_SECONDS: Final = 1.0

#: The maximum number of retired keys in the set: more rotations have to wait.
MAX_RETIRED: Final = 16

_log = Logger()

_T = TypeVar("_T", bound=Struct)


class SigningKeyFileError(Exception):
    """The file of the signing key can't be used. The message has the path, and what to change."""


class Values(Protocol):
    """The values of a storage; see :meth:`.IStorage.values` and :meth:`.IStorage.write_values`."""

    def values(self, prefix: str = "", after: str = "", max_count: int = 1000) -> NowOrLater[list[tuple[str, bytes]]]:
        """Return a page of values by key."""

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> NowOrLater[None]:
        """Compare values and write others in one step."""


class _StoredSigning(Struct, frozen=True, array_like=True):
    """
    The value of ``secrets/signing``.

    :ivar seed: the private key; None if it is in a file, whose public key is ``public``.
    """

    version: int
    seed: bytes | None
    public: bytes
    retired: tuple[RetiredKey, ...] = ()


class _StoredTokens(Struct, frozen=True, array_like=True):
    """The value of ``secrets/tokens``."""

    version: int
    secret: bytes


class Secrets:
    """
    The secrets, loaded.

    :ivar tokens: issues and verifies tokens.
    """

    def __init__(
        self,
        values: Values,
        wall: Callable[[], float],
        ring: KeyRing,
        stored: bytes,
        tokens: Tokens,
        key_file: str | None,
    ) -> None:
        self._values = values
        self._wall = wall
        self._ring = ring
        self._stored = stored
        self._key_file = key_file
        self._looked_at = wall()
        self._trouble = ""
        self.tokens = tokens

    @property
    def kid(self) -> str:
        """The id of the key that signs."""
        return self._ring.active.kid

    def sign(self, body: bytes) -> str:
        """Return the header ``Webhook-Signature`` of a body, as of now."""
        return self._ring.active.sign(body, self._wall())

    def jwks(self) -> bytes:
        """Return the public keys as a JSON Web Key Set."""
        return self._ring.jwks(self._wall())

    async def rotate(self) -> KeyRotation:
        """
        Sign with a new key from now on. The present one stays in the key set for 10 minutes.

        :raises KeyRotationRefused: the key is in a file, or was rotated too often, or the stored one is damaged.
        """
        if self._key_file is not None:
            raise KeyRotationRefused(
                f"The signing key is in {self._key_file} (subscriptions.signing_key_file). Replace the file and send "
                "the server SIGHUP."
            )
        for _ in range(_MAX_TRIES):
            try:
                await self._take_over()
            except CorruptRecord as error:
                raise KeyRotationRefused(str(error)) from None
            now, before = self._wall(), self.kid
            ring = self._ring.rotated(SigningKey(token_bytes(_SEED_BYTES)), now)
            _check_rotation(ring)
            stored = _encode(_StoredSigning(VERSION, ring.active.seed, ring.active.public, ring.retired))
            try:
                await settle(self._values.write_values({SIGNING: stored}, {SIGNING: self._stored}))
            except ValuesChanged:
                continue
            self._ring, self._stored = ring, stored
            return KeyRotation(self.kid, before, now + RETIREMENT_SECONDS)
        raise KeyRotationRefused("Other nodes rotate the signing key all the time. Try again later.")

    async def refresh(self) -> None:
        """
        Take over the key that another node has rotated to. The storage is read at most once a second.

        If it cannot be read, log that, and go on with the keys as they are.
        """
        now = self._wall()
        if 0 <= now - self._looked_at < REFRESH_SECONDS:
            return
        self._looked_at = now
        try:
            await self._take_over()
        except (StreamsError, CorruptRecord) as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                _log.warn("The signing key of webhooks was not read again; it stays as it was. {reason}", reason=error)
        else:
            self._trouble = ""

    async def reload(self) -> None:
        """Read the file of the key again, if there is one. If it cannot be used, log that, and keep the key."""
        if self._key_file is None:
            return
        try:
            loaded = await load_secrets(self._values, self._wall, self._key_file)
        except (StreamsError, CorruptRecord, SigningKeyFileError) as error:
            _log.error("Reload: the signing key of webhooks stays as it was. {reason}", reason=error)
        else:
            self._ring, self._stored = loaded._ring, loaded._stored

    async def _take_over(self) -> None:
        """
        Read the stored keys.

        :raises CorruptRecord: they are damaged.
        """
        before, kid = self._stored, self.kid
        page = await settle(self._values.values(SIGNING, "", 1))
        stored = dict(page).get(SIGNING)
        # Another call may have changed the keys meanwhile.
        if stored is None or stored == before or self._stored is not before:
            return
        record = _decode_signing(stored)
        if self._key_file is None and record.seed is not None:
            self._ring = KeyRing(SigningKey(record.seed), record.retired)
        else:
            # Another node signs with the key of a file that this one does not have: it belongs to the set, too.
            active, others = self._ring.active, (RetiredKey(record.public, inf), *record.retired)
            self._ring = KeyRing(active, tuple(key for key in others if key.public != active.public))
        self._stored = stored
        if self.kid != kid:
            _log.info("Another node has rotated the signing key of webhooks: {kid}.", kid=self.kid)


async def load_secrets(values: Values, wall: Callable[[], float], key_file: str | None = None) -> Secrets:
    """
    Load the secrets; make those that the storage does not have.

    If the signing key is another one than before, because ``key_file`` or its content has changed, the public key of
    the former stays in the key set for 10 minutes.

    :param wall: returns the time, in seconds since 1970.
    :param key_file: the path of the signing key in PEM form (subscriptions.signing_key_file), or None.
    :raises CorruptRecord: a stored secret is damaged, or of another version. No new one is made.
    :raises SigningKeyFileError: the file can't be used.
    """
    from_file = None if key_file is None else read_key_file(key_file)
    for _ in range(_MAX_TRIES):
        page = await settle(values.values(SECRETS))
        stored = dict(page)
        ring, signing = _signing(stored.get(SIGNING), from_file, wall())
        tokens, secret = _tokens(stored.get(TOKENS))
        puts: dict[str, bytes | None] = {
            key: value for key, value in ((SIGNING, signing), (TOKENS, secret)) if value != stored.get(key)
        }
        try:
            if puts:
                await settle(values.write_values(puts, {key: stored.get(key) for key in puts}))
        except ValuesChanged:
            continue
        return Secrets(values, wall, ring, signing, tokens, key_file)
    raise CorruptRecord(SIGNING, "other nodes change it all the time")


def read_key_file(path: str) -> SigningKey:
    """
    Return the signing key in a file.

    :raises SigningKeyFileError: it can't be read, others may read it, or it has no Ed25519 key.
    """
    where = f"{path} (subscriptions.signing_key_file)"
    try:
        pem = read_secret_file(path, _MAX_FILE_BYTES)
    except OSError as error:
        raise SigningKeyFileError(f"Cannot read {where}: {error.strerror}.") from None
    except NotAFileError:
        raise SigningKeyFileError(f"{where} is not a file.") from None
    except SharedFileError as error:
        raise SigningKeyFileError(
            f"{where} is open to others than its owner (mode {error.mode}). Set its mode to 0600."
        ) from None
    try:
        return SigningKey.from_pem(pem)
    except ValueError as error:
        raise SigningKeyFileError(
            f"{where}: {error}. Make one by: openssl genpkey -algorithm ed25519 -out {path}"
        ) from None


def _check_rotation(ring: KeyRing) -> None:
    """
    Check that there may be another key.

    :param ring: the keys after the rotation.
    :raises KeyRotationRefused: another node signs with the key of a file, or there were too many rotations.
    """
    if any(key.until == inf for key in ring.retired):
        raise KeyRotationRefused(
            "Another node signs with the key of a file. Set subscriptions.signing_key_file on all nodes, or on none."
        )
    if len(ring.retired) > MAX_RETIRED:
        raise KeyRotationRefused(
            f"The signing key was rotated {MAX_RETIRED} times within 10 minutes. Wait until the first of these keys "
            "has left the key set."
        )


def _decode_signing(value: bytes) -> _StoredSigning:
    """
    Decode the stored keys.

    :raises CorruptRecord: they are damaged, or of another version.
    """
    record = _decode(SIGNING, value, _StoredSigning)
    if len(record.public) != _SEED_BYTES or (record.seed is not None and len(record.seed) != _SEED_BYTES):
        raise CorruptRecord(SIGNING, "a key has the wrong length")
    if record.seed is not None and SigningKey(record.seed).public != record.public:
        raise CorruptRecord(SIGNING, "the public key is not that of the private key")
    return record


def _signing(value: bytes | None, from_file: SigningKey | None, now: float) -> tuple[KeyRing, bytes]:
    """Return the keys, and the value that is to be stored."""
    if value is None:
        active = from_file or SigningKey(token_bytes(_SEED_BYTES))
        _log.info("Created the signing key of webhooks: {kid}.", kid=active.kid)
        return _stored_ring(KeyRing(active), from_file)
    record = _decode_signing(value)
    stored_key = None if record.seed is None else SigningKey(record.seed)
    active = from_file or stored_key or SigningKey(token_bytes(_SEED_BYTES))
    if active.public == record.public and (record.seed is None) == (from_file is not None):
        return KeyRing(active, record.retired), value
    ring = KeyRing(active, retired(record.public, record.retired, active.public, now))
    _log.info("Webhooks are signed by another key than before: {kid}.", kid=active.kid)
    return _stored_ring(ring, from_file)


def _stored_ring(ring: KeyRing, from_file: SigningKey | None) -> tuple[KeyRing, bytes]:
    seed = ring.active.seed if from_file is None else None
    return ring, _encode(_StoredSigning(VERSION, seed, ring.active.public, ring.retired))


def _tokens(value: bytes | None) -> tuple[Tokens, bytes]:
    """Return the tokens, and the value that is to be stored."""
    if value is None:
        value = _encode(_StoredTokens(VERSION, token_bytes(SECRET_BYTES)))
    try:
        return Tokens(_decode(TOKENS, value, _StoredTokens).secret), value
    except ValueError as error:
        raise CorruptRecord(TOKENS, str(error)) from None


def _encode(record: Struct) -> bytes:
    return msgspec.msgpack.encode(record)


def _decode(key: str, value: bytes, kind: type[_T]) -> _T:
    """
    Decode a stored secret. Errors have nothing of its value.

    :raises CorruptRecord: it is damaged, or of another version.
    """
    try:
        version = msgspec.msgpack.decode(msgspec.msgpack.decode(value, type=list[msgspec.Raw])[0], type=int)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
        raise CorruptRecord(key, "it is damaged") from None
    if version != VERSION:
        raise CorruptRecord(key, f"it has version {version}, and this server reads version {VERSION}")
    try:
        return msgspec.msgpack.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CorruptRecord(key, "it is damaged") from None
