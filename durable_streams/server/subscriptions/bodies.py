"""Parsing of the JSON bodies of the subscription APIs. None counts as absent in each optional member."""

from __future__ import annotations

import re
from typing import Final, cast

import msgspec

from ..errors import InvalidName
from ..protocol.names import NameLimits, check_name
from .errors import (
    InvalidConfig,
    InvalidJsonBody,
    InvalidPath,
    InvalidSubscriptionId,
    InvalidSubscriptionRequest,
    InvalidWorker,
)
from .model import Ack, AckRequest

#: The maximum size of a body, in bytes.
MAX_BODY_BYTES: Final = 1_048_576

#: The maximum number of streams in a configuration, or added at once.
MAX_STREAMS: Final = 1000

#: The maximum number of acks in one request: five times the streams of the largest snapshot. They take about 30 ms.
MAX_ACKS: Final = 5_000

_MAX_WORKER_BYTES: Final = 256
_ID: Final = re.compile(r"[A-Za-z0-9\-._~:@+=,]{1,256}")
_decode: Final = msgspec.json.Decoder().decode


def check_id(subscription_id: str) -> None:
    """
    Check the id of a new subscription, percent-decoded.

    :raises InvalidSubscriptionId: it is malformed.
    """
    if _ID.fullmatch(subscription_id) is None or subscription_id in (".", ".."):
        raise InvalidSubscriptionId


def parse_object(body: bytes) -> dict[str, object]:
    """
    Return the members of a JSON object; none for an empty body. Of members with the same name the last one counts.

    :raises InvalidJsonBody: the body is not JSON.
    :raises InvalidSubscriptionRequest: it is no object.
    """
    if not body:
        return {}
    try:
        body.decode()
        value = _decode(body)
    except UnicodeDecodeError as error:
        raise InvalidJsonBody(f"The body is not UTF-8 at byte {error.start}.") from None
    except RecursionError:
        raise InvalidJsonBody("The body is nested too deeply.") from None
    except msgspec.DecodeError as error:
        raise InvalidJsonBody(f"The body is not valid JSON. {error}.") from None
    if not isinstance(value, dict):
        raise InvalidSubscriptionRequest("The body must be a JSON object.")
    return value


def normal_path(path: str, limits: NameLimits, field: str = "path") -> str:
    """
    Return the name of a stream without slashes at its ends. It is literal: nothing is percent-decoded.

    :param field: where the path was found, for the message.
    :raises InvalidPath: it is not a valid name.
    """
    name = path.strip("/")
    try:
        check_name(name, limits)
    except InvalidName as error:
        raise InvalidPath(f"{field}: {error}") from None
    return name


def read_paths(value: object, limits: NameLimits) -> tuple[str, ...]:
    """
    Return the names in a member ``streams``, sorted, without duplicates.

    :raises InvalidSubscriptionRequest: it is not an array of strings.
    :raises InvalidConfig: it has more than 1,000.
    :raises InvalidPath: one is not a valid name.
    """
    if not isinstance(value, list) or not all(isinstance(path, str) for path in value):
        raise InvalidSubscriptionRequest("streams must be an array of strings, the names of streams.")
    if len(value) > MAX_STREAMS:
        raise InvalidConfig(
            "streams", f"streams must not have more than {MAX_STREAMS} names. Add the others by further requests."
        )
    return tuple(sorted({normal_path(path, limits, "streams") for path in value}))


def read_added_streams(body: bytes, limits: NameLimits) -> tuple[str, ...]:
    """
    Return the names in a request that adds streams.

    :raises SubscriptionError: as :func:`parse_object` and :func:`read_paths` do, or ``streams`` is absent or empty.
    """
    streams = parse_object(body).get("streams")
    if streams is None or streams == []:
        raise InvalidSubscriptionRequest("streams must be an array of at least one string, the name of a stream.")
    return read_paths(streams, limits)


def read_worker(body: bytes) -> str:
    """
    Return the name of the worker in a claim.

    :raises SubscriptionError: as :func:`parse_object` does.
    :raises InvalidWorker: the name is missing, blank or too long.
    """
    worker = parse_object(body).get("worker")
    if not isinstance(worker, str) or not worker.strip() or len(worker.encode()) > _MAX_WORKER_BYTES:
        raise InvalidWorker
    return worker


def read_ack(body: bytes) -> AckRequest:
    """
    Return the body of an ack, a callback or a release. Unknown members are ignored.

    :raises SubscriptionError: as :func:`parse_object` does.
    :raises InvalidSubscriptionRequest: a member is missing or has the wrong type.
    """
    members = parse_object(body)
    wake_id, generation = members.get("wake_id"), members.get("generation")
    if not isinstance(wake_id, str):
        raise InvalidSubscriptionRequest("wake_id must be a string, the one of the claim or the webhook.")
    if not is_integer(generation):
        raise InvalidSubscriptionRequest("generation must be an integer, the one of the claim or the webhook.")
    done = members.get("done")
    if done is not None and not isinstance(done, bool):
        raise InvalidSubscriptionRequest("done must be true or false.")
    return AckRequest(wake_id, int(cast(float, generation)), _read_acks(members.get("acks")), bool(done))


def _read_acks(value: object) -> tuple[Ack, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidSubscriptionRequest("acks must be an array of objects with stream and offset.")
    if len(value) > MAX_ACKS:
        raise InvalidSubscriptionRequest(f"acks must not have more than {MAX_ACKS} members. Send several requests.")
    return tuple(_read_one_ack(item) for item in value)


def _read_one_ack(item: object) -> Ack:
    if isinstance(item, dict):
        path = item.get("stream")
        if path is None:
            path = item.get("path")
        offset = item.get("offset")
        if isinstance(path, str) and isinstance(offset, str):
            return Ack(path.strip("/"), offset)
    raise InvalidSubscriptionRequest("Each of acks must be an object with the strings stream (or path) and offset.")


def is_integer(value: object) -> bool:
    """Return whether a JSON value is a number without a fraction."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)
