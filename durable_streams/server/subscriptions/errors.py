"""
The refusals of the subscription APIs. The web answers each with its ``status``, ``code``, message and ``details``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ..errors import StreamsError


class SubscriptionError(StreamsError):
    """
    The base class of all refusals of the subscription APIs. The message says what to change.

    :cvar status: the HTTP status of the answer.
    :cvar code: the member ``error.code`` of the answer.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "INVALID_REQUEST"

    @property
    def details(self) -> Mapping[str, object]:
        """Further members of ``error``, beside ``code`` and ``message``."""
        return {}


class InvalidJsonBody(SubscriptionError):
    """The body is not JSON."""

    code = "INVALID_JSON"


class InvalidSubscriptionRequest(SubscriptionError):
    """
    The body is not an object, a field is missing or has the wrong type, or the action is for another delivery type.
    """

    code = "INVALID_REQUEST"


class InvalidConfig(SubscriptionError):
    """The configuration breaks a rule; ``field`` names the field."""

    code = "INVALID_CONFIG"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class InvalidSubscriptionId(SubscriptionError):
    """The id of a new subscription is malformed."""

    code = "INVALID_ID"

    def __init__(self) -> None:
        super().__init__(
            "A subscription's id must be one segment of 1 to 256 letters, digits and -._~:@+=, and not . or .. alone."
        )


class InvalidPath(SubscriptionError):
    """A path in a body is not the name of a stream."""

    code = "INVALID_PATH"


class InvalidWorker(SubscriptionError):
    """The name of the worker in a claim is missing, blank or too long."""

    code = "INVALID_WORKER"

    def __init__(self) -> None:
        super().__init__("worker must be a string of 1 to 256 bytes that is not blank. Send the name of the worker.")


class InvalidWakeStream(SubscriptionError):
    """The wake stream does not exist, is closed, or is not a JSON stream."""

    code = "INVALID_WAKE_STREAM"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"The wake stream {path} {reason}. Create it as an open stream with content type application/json first."
        )


class InvalidOrigin(SubscriptionError):
    """The request has no Host from which callback URLs could be made, and no public URL is configured."""

    code = "INVALID_ORIGIN"

    def __init__(self) -> None:
        super().__init__("The request has no Host header. Send one, or set http.public_url.")


class WebhookUrlRejected(SubscriptionError):
    """The webhook URL is malformed, or leads to an address that must not be called."""

    code = "WEBHOOK_URL_REJECTED"


class TokenInvalid(SubscriptionError):
    """
    The request has no bearer token, or not an authentic one of this subscription.

    The answer needs ``WWW-Authenticate: Bearer``.
    """

    status = 401
    code = "TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__("Send the token of the claim or of the webhook as Authorization: Bearer TOKEN.")


class SubscriptionNotFound(SubscriptionError):
    """There is no subscription of this id."""

    status = 404
    code = "SUBSCRIPTION_NOT_FOUND"

    def __init__(self, subscription_id: str) -> None:
        super().__init__(f"There is no subscription {subscription_id}. Create it first.")
        self.subscription_id = subscription_id


class SubscriptionExists(SubscriptionError):
    """A subscription of this id exists with another configuration."""

    status = 409
    code = "SUBSCRIPTION_ALREADY_EXISTS"

    def __init__(self, subscription_id: str) -> None:
        super().__init__(
            f"The subscription {subscription_id} exists with another configuration. Delete it first, or use another id."
        )
        self.subscription_id = subscription_id


class AlreadyClaimed(SubscriptionError):
    """A worker holds the lease; ``current_holder`` is its name."""

    status = 409
    code = "ALREADY_CLAIMED"

    def __init__(self, current_holder: str, generation: int) -> None:
        super().__init__("Another worker holds the lease. Wait for the next wake event.")
        self.current_holder = current_holder
        self.generation = generation

    @property
    def details(self) -> Mapping[str, object]:
        """The holder of the lease and the generation of its wake."""
        return {"current_holder": self.current_holder, "generation": self.generation}


class NoPendingWork(SubscriptionError):
    """No linked stream has data after its cursor."""

    status = 409
    code = "NO_PENDING_WORK"

    def __init__(self) -> None:
        super().__init__("No linked stream has data after its cursor. Wait for the next wake event.")


class Fenced(SubscriptionError):
    """The token is authentic, but its wake has ended."""

    status = 409
    code = "FENCED"

    def __init__(self) -> None:
        super().__init__("The wake of this token has ended. Discard the work, and wait for the next wake.")


class InvalidAckOffset(SubscriptionError):
    """An ack names a stream that is not linked, or an offset that is no place between its cursor and its tail."""

    status = 409
    code = "INVALID_OFFSET"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class KeyRotationRefused(SubscriptionError):
    """The signing key was not rotated."""

    status = 409
    code = "KEY_NOT_ROTATED"


class SubscriptionLimitReached(SubscriptionError):
    """A maximum of subscriptions or of links is reached; ``setting`` is the name of its setting."""

    status = 507
    code = "LIMIT_REACHED"

    def __init__(self, limit: int, what: str, setting: str) -> None:
        super().__init__(f"The server has {limit} {what} already, the maximum ({setting}). Delete some first.")
        self.limit = limit
        self.setting = setting


class SubscriptionsUnavailable(SubscriptionError):
    """The storage can't take the change now, or the server stops. The answer needs ``Retry-After: 1``."""

    status = 503
    code = "UNAVAILABLE"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason} Try again in a second.")


class CorruptRecord(Exception):
    """A stored record can't be read. It ends the start of the server; streams are not served without subscriptions."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(
            f"The stored record {key} can't be read: {reason}. Restore the data directory from a copy, or start the "
            "version of the server that wrote it."
        )
        self.key = key
