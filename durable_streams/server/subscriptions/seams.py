"""The parts that the service of subscriptions is given: the sender of webhooks, keys, tokens, and the lease."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct, field

from .model import Outcome, TokenClaims
from .tracing import DeliveryTraces, TraceContext


class WebhookSender(Protocol):
    """Checks the URLs of webhooks, and sends requests to them."""

    async def check(self, url: str) -> None:
        """
        Check that a URL may be called.

        :raises WebhookUrlRejected: it may not.
        """

    async def send(self, subscription_id: str, url: str, body: bytes, trace: TraceContext) -> Outcome:
        """
        Make one delivery attempt, with the URL and its addresses checked again. Log why it fails.

        It ends within the time limit of an attempt. To cancel it aborts the request.

        :param trace: the trace context of the attempt.
        """


class KeyRotation(Struct, frozen=True):
    """
    A rotation of the key that signs webhooks.

    :ivar kid: the id of the key that signs now.
    :ivar previous_kid: the id of the one that has signed before.
    :ivar previous_until: when that one leaves the key set, in seconds since 1970.
    """

    kid: str
    previous_kid: str
    previous_until: float


class SigningKeys(Protocol):
    """The keys that sign webhooks."""

    @property
    def kid(self) -> str:
        """The id of the active key."""

    def jwks(self) -> bytes:
        """Return the public keys as a JSON Web Key Set."""

    async def refresh(self) -> None:
        """Take over the key that another node has rotated to, within a second or so."""

    async def rotate(self) -> KeyRotation:
        """
        Sign with a new key. The present one stays in the key set for 10 minutes.

        :raises KeyRotationRefused: that is not possible now.
        """


class Tokens(Protocol):
    """Makes and checks the tokens of wakes."""

    def issue(self, claims: TokenClaims) -> str:
        """Return the token of a wake; the same for the same claims."""

    def verify(self, token: str, subscription_id: str) -> TokenClaims:
        """
        Return what a token says.

        :raises TokenInvalid: it is malformed, not authentic, or of another subscription.
        """


def _nothing_to_reload() -> None:
    """Do nothing."""


class Parts(Struct, frozen=True):
    """
    What the service works with, once its secrets are loaded.

    :ivar failures: failed webhook requests by reason, for metrics; it changes.
    :ivar traces: chooses the trace context of deliveries.
    :ivar reload: reads files again, and logs errors.
    """

    sender: WebhookSender
    keys: SigningKeys
    tokens: Tokens
    failures: Mapping[str, int] = {}
    traces: DeliveryTraces = field(default_factory=DeliveryTraces)
    reload: Callable[[], None] = _nothing_to_reload


class PartitionLease(Protocol):
    """
    Which subscriptions this node is responsible for: it wakes, delivers and sweeps those alone.

    Each change of a subscription compares its state in its transaction, so that a node that was deposed without
    noticing changes nothing; its deliveries are repeats.
    """

    def holds(self, subscription_id: str) -> bool:
        """Return whether this node is responsible for a subscription at the moment."""


class SingleNode:
    """The lease of the only node of a storage: it has all subscriptions."""

    def holds(self, subscription_id: str) -> bool:
        return True
