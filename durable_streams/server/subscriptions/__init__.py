"""Subscriptions: durable cursors over streams that wake workers (PROTOCOL sections 6 and 7).

:mod:`.machine` decides what happens to one subscription; it is pure. :mod:`.model` has its values, :mod:`.records`
their stored form, :mod:`.patterns` the patterns of names and their index.

:mod:`.service` has the running service: it follows the commits of streams (:mod:`.following`), finds the subscriptions
that they concern (:mod:`.index`), writes decisions (:mod:`.registry`), performs requests (:mod:`.requests`) and
delivers wakes (:mod:`.dispatching`).
"""

from .bodies import MAX_BODY_BYTES, check_id, normal_path, read_ack, read_added_streams, read_worker
from .configuration import read_config
from .counts import SubscriptionFigures
from .decisions import Current
from .errors import (
    AlreadyClaimed,
    Fenced,
    InvalidAckOffset,
    InvalidConfig,
    InvalidOrigin,
    InvalidSubscriptionId,
    InvalidSubscriptionRequest,
    InvalidWakeStream,
    KeyRotationRefused,
    NoPendingWork,
    SubscriptionError,
    SubscriptionExists,
    SubscriptionLimitReached,
    SubscriptionNotFound,
    SubscriptionsUnavailable,
    TokenInvalid,
    WebhookUrlRejected,
)
from .model import Ack, AckRequest, Outcome, TokenClaims
from .seams import KeyRotation, Parts, WebhookSender
from .service import SubscriptionService
from .settings import ServiceSettings
from .tokens import bearer_token
from .tracing import TraceContext

__all__ = [
    "MAX_BODY_BYTES",
    "Ack",
    "AckRequest",
    "AlreadyClaimed",
    "Current",
    "Fenced",
    "InvalidAckOffset",
    "InvalidConfig",
    "InvalidOrigin",
    "InvalidSubscriptionId",
    "InvalidSubscriptionRequest",
    "InvalidWakeStream",
    "KeyRotation",
    "KeyRotationRefused",
    "NoPendingWork",
    "Outcome",
    "Parts",
    "ServiceSettings",
    "SubscriptionError",
    "SubscriptionExists",
    "SubscriptionFigures",
    "SubscriptionLimitReached",
    "SubscriptionNotFound",
    "SubscriptionService",
    "SubscriptionsUnavailable",
    "TokenClaims",
    "TokenInvalid",
    "TraceContext",
    "WebhookSender",
    "WebhookUrlRejected",
    "bearer_token",
    "check_id",
    "normal_path",
    "read_ack",
    "read_added_streams",
    "read_config",
    "read_worker",
]
