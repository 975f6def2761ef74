"""The parts of the service as a server uses them: stored secrets, and webhooks over the network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..clocks import clock_of
from ..streams import Streams
from .addresses import AddressPolicy
from .authorities import Authorities
from .delivery import DeliveryLimits, HttpSender
from .kept_secrets import load_secrets
from .resolving import Resolve, ThreadedResolver
from .seams import Parts, WebhookSender

_log = Logger()


class WebhookSettings(Struct, frozen=True):
    """
    How webhooks are signed and sent.

    :ivar policy: which addresses may be called.
    :ivar request_timeout: the time limit of one attempt, in seconds.
    :ivar signing_key_file: the path of the signing key; None for a stored one.
    :ivar authorities: those that the certificates of receivers are verified with, besides the system's.
    """

    policy: AddressPolicy = AddressPolicy()
    request_timeout: float = 5.0
    signing_key_file: str | None = None
    authorities: Authorities = field(default_factory=Authorities)


def opener(
    streams: Streams,
    reactor: Any,
    settings: WebhookSettings,
    resolve: Resolve | None = None,
    around: Callable[[WebhookSender], WebhookSender] | None = None,
) -> Callable[[], Awaitable[Parts]]:
    """
    Return what loads or makes the secrets of a storage, for :class:`.SubscriptionService`.

    :param resolve: looks up host names; None for the system's resolver.
    :param around: returns the sender in place of the one over the network, which it is called with.
    """

    async def open_parts() -> Parts:
        """
        Load the secrets.

        :raises CorruptRecord: a stored secret is damaged.
        :raises SigningKeyFileError: the file of the signing key cannot be used.
        """
        secrets = await load_secrets(streams, clock_of(reactor).wall, settings.signing_key_file)
        sender = HttpSender(
            reactor,
            settings.policy,
            resolve or ThreadedResolver(reactor),
            secrets.sign,
            DeliveryLimits(total=settings.request_timeout),
            settings.authorities,
        )

        def reload() -> None:
            settings.authorities.reload()
            Deferred.fromCoroutine(secrets.reload()).addErrback(
                lambda failure: _log.failure("Reloading the signing key of webhooks failed.", failure)
            )

        return Parts(
            sender if around is None else around(sender),
            secrets,
            secrets.tokens,
            sender.failures,
            reload=reload,
        )

    return open_parts
