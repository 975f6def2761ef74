"""When a creation finds what it asks for already there (PROTOCOL section 5.1)."""

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
    Let a creation pass that would have made the stream as it is.

    :param made_with: the configuration that the stream was made with.
    :param lifetime: the stream's own, a fork's inherited one included.
    :param closed: whether the stream is closed by now.
    :param same_point: whether the fork point that is asked for, if any, is the stream's own.
    :raises StreamExists: it would have made another; the error says in what it differs.
    """
    if asked.closed != closed:
        raise StreamExists(facts.name, "closure: send Stream-Closed as the stream is")
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
