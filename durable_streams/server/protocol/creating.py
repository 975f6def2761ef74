"""The rule for creating a stream that exists already (PROTOCOL section 5.1)."""

from __future__ import annotations

from ..errors import StreamExists
from ..model import Lifetime, StreamConfig, StreamFacts
from .content import DEFAULT_TYPE, media_type


def check_same(
    asked: StreamConfig,
    made_with: StreamConfig,
    facts: StreamFacts,
    lifetime: Lifetime,
    closed: bool,
    same_point: bool,
) -> None:
    """
    Check that a create request has the same configuration as the existing stream.

    :param asked: the configuration in the request.
    :param made_with: the configuration with which the stream was created.
    :param lifetime: the stream's lifetime, which a fork may have inherited.
    :param closed: whether the stream is closed now.
    :param same_point: whether the requested fork point, if any, is the stream's own.
    :raises StreamExists: the configurations differ; the error names the difference.
    """
    if asked.closed != closed:
        raise StreamExists(facts.name, "closure: Stream-Closed must equal the stream's present state")
    if not same_point:
        raise StreamExists(facts.name, "source or fork offset")
    if asked.lifetime not in (made_with.lifetime, lifetime):
        raise StreamExists(facts.name, "lifetime")
    if asked.content_type is not None:
        same_type = media_type(asked.content_type) == facts.media_type
    else:
        same_type = asked.fork is not None or facts.media_type == DEFAULT_TYPE
    if not same_type:
        raise StreamExists(facts.name, f"content type: it is {facts.content_type}")
