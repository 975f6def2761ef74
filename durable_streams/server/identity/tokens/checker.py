"""The checker of static tokens, with the file as it was read last."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct
from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred
from zope.interface import implementer

from ...interfaces import NowOrLater
from ..challenges import invalid_token
from ..credentials import BearerToken, IBearerToken
from ..principal import Principal
from ..reloaded_file import ReloadedFile
from ..revocation import IRevocations
from .file import TokenFileDamaged, TokenFileError, read_tokens
from .hashes import DEFAULT_COST, ScryptCost, SecretHash, decoy_hash
from .queue import FairQueue
from .records import LoadedRecord, TokenRecord, parse_token

#: How many verified tokens are remembered. After that many, the oldest is verified again.
MAX_VERIFIED: Final = 20_000

_KIND: Final = "token"


class _Token(Struct, frozen=True):
    """A token of the file, and the principal that it stands for: the same object until its record changes."""

    loaded: LoadedRecord
    principal: Principal


class _Loaded(Struct, frozen=True):
    """
    What was read of the file.

    :ivar lines: the records by their lines.
    :ivar tokens: the tokens by their ids.
    :ivar costs: of the hash of each token; at least one.
    :ivar decoys: a hash of each cost that no token has.
    """

    lines: dict[bytes, LoadedRecord]
    tokens: dict[str, _Token]
    costs: tuple[ScryptCost, ...]
    decoys: dict[ScryptCost, SecretHash]


_NOTHING: Final = _Loaded({}, {}, (), {})


@implementer(ICredentialsChecker, IRevocations)
class StaticTokens(ReloadedFile[_Loaded]):
    """
    Checks static tokens against the hashes in a file.

    The hash of a presented token is computed in a thread, also if there is no token of its id: so the time does not
    tell which ids there are. A verified token is remembered by a keyed digest, so that its hash is computed once, and
    not again after a change of the file that leaves its record as it is.

    :param path: of the file.
    :param reactor: in whose thread results arrive.
    :param queue: computes hashes; None for one with the default bounds.
    :raises TokenFileError: the file cannot be used.
    """

    credentialInterfaces = (IBearerToken,)
    kinds = (_KIND,)
    setting = "auth.token_file"
    content = "tokens"
    errors = TokenFileError

    def __init__(self, path: str, reactor: Any, queue: FairQueue | None = None) -> None:
        super().__init__(path, reactor)
        self._queue = FairQueue(reactor) if queue is None else queue
        self._digest_key = secrets.token_bytes(32)
        self._verified: dict[bytes, Principal] = {}
        self._loaded = _load(self.path, _NOTHING)
        # What the thread has read last, which may not be in use yet.
        self._latest = self._loaded
        self._tokens = self._loaded.tokens

    @property
    def records(self) -> list[TokenRecord]:
        """The records of all tokens, in the order of the file."""
        return [token.loaded.record for token in self._tokens.values()]

    @property
    def listed(self) -> Mapping[str, TokenRecord]:
        """The record of each token, by its id."""
        return {record.id: record for record in self.records}

    def requestAvatarId(self, credentials: BearerToken) -> Any:
        """
        Return the principal of a token, or a Deferred of it.

        :raises NotAuthenticated: the token is malformed, unknown, or revoked.
        :raises Unavailable: too many tokens are being verified.
        """
        parts = parse_token(credentials.token)
        if parts is None:
            raise invalid_token("The static token is malformed: it is dst_ID_SECRET. Send it as it was printed.")
        digest = blake2b(credentials.token, key=self._digest_key, digest_size=32).digest()
        principal = self._verified.get(digest)
        if principal is not None and self.is_current(principal):
            return principal
        return self._compute(*parts, digest, credentials.address)

    def is_current(self, principal: Principal) -> bool:
        """Return whether the file has the token of a principal, unchanged."""
        token = self._tokens.get(principal.credential)
        return token is not None and token.principal is principal

    # The file

    def _read(self) -> _Loaded:
        self._latest = _load(self.path, self._latest)
        return self._latest

    def _use(self, found: _Loaded) -> bool:
        has_changed = found.tokens != self._loaded.tokens
        self._loaded = found
        self._tokens = found.tokens
        self._verified = {
            digest: principal for digest, principal in self._verified.items() if self.is_current(principal)
        }
        return has_changed

    def _count(self) -> int:
        return len(self._tokens)

    def _is_final(self, error: Exception) -> bool:
        return isinstance(error, TokenFileDamaged)

    # The hashes

    def _compute(self, token_id: str, secret: bytes, digest: bytes, address: str) -> NowOrLater[Principal]:
        token = self._tokens.get(token_id)
        # The decoy is chosen for known ids, too: that takes 2 us.
        decoy = self._decoy_of(token_id)
        expected = decoy if token is None else token.loaded.hash
        matching: Deferred[bool] = self._queue.do(address, lambda: expected.matches(secret))
        return matching.addCallback(self._decide, token, digest)

    def _decide(self, matches: bool, token: _Token | None, digest: bytes) -> Principal:
        if token is None or not matches or not self.is_current(token.principal):
            raise invalid_token("The static token is not known. It may have been revoked.")
        while len(self._verified) >= MAX_VERIFIED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = token.principal
        return token.principal

    def _decoy_of(self, token_id: str) -> SecretHash:
        """Return the hash to compute for an unknown id. Its cost is that of a known id, and always the same one."""
        chosen = blake2b(token_id.encode("ascii"), key=self._digest_key, digest_size=8).digest()
        costs = self._loaded.costs
        return self._loaded.decoys[costs[int.from_bytes(chosen) % len(costs)]]


def _load(path: str, before: _Loaded) -> _Loaded:
    """
    Read the file. This may take 0.3 s for a large one.

    :param before: what was read before. Of the tokens that are the same, the principals stay the same objects.
    :raises TokenFileError: the file cannot be used.
    """
    lines = read_tokens(path, before.lines)
    tokens = {}
    for loaded in lines.values():
        known = before.tokens.get(loaded.record.id)
        if known is None or known.loaded != loaded:
            known = _Token(loaded, _principal_of(loaded.record))
        tokens[loaded.record.id] = known
    costs = tuple(loaded.hash.cost for loaded in lines.values()) or (DEFAULT_COST,)
    return _Loaded(lines, tokens, costs, {cost: decoy_hash(cost) for cost in costs})


def _principal_of(record: TokenRecord) -> Principal:
    claims: Mapping[str, object] = MappingProxyType(record.claims)
    return Principal(
        record.subject,
        _KIND,
        groups=frozenset(record.groups),
        claims=claims,
        expires_at=None if record.expires_at is None else record.expires_at.timestamp(),
        credential=record.id,
    )
