"""JSON mode: bodies become messages, and ranges of messages become one array (PROTOCOL section 9.1).

The wire form of a JSON stream is each of its messages, the bytes as they came, followed by a comma. A body that is an
array is already that, but for its brackets, so a batch is checked as a whole and never taken apart.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

import msgspec

from ..errors import EmptyArray, InvalidJson

_WHITESPACE = b" \t\n\r"
_check = msgspec.json.Decoder(msgspec.Raw).decode

#: Two strings at most, with what is around them, and then a bracket or a comma, or the quote that begins a string of
#: more than a few KiB or escapes. Every repetition is possessive and has a bound, so that a match takes less than 1 ms.
_TOKEN = re.compile(
    rb"""
    (?: [^]["{},]{0,4096}+ "[^"\\]{0,4096}+ (?: \\. [^"\\]{0,4096}+ ){0,16}+ " ){0,2}+
    [^]["{},]{0,4096}+
    ([]["{},])?
    """,
    re.DOTALL | re.VERBOSE,
)

_OPENING = frozenset([b"[", b"{"])
_CLOSING = frozenset([b"]", b"}"])

#: A part of a long string.
_TEXT = re.compile(rb'(?:[^"\\]{1,4096}+|\\.){1,64}+', re.DOTALL)

#: After how many tokens, or bytes, :func:`scan` pauses: they take about half a millisecond.
_TOKENS_AT_ONCE = 1024
_BYTES_AT_ONCE = 65_536


def wire_form(body: bytes, empty_allowed: bool = False) -> bytes:
    """
    Turn a request's body into messages.

    :param empty_allowed: whether an array of nothing is no error.
    :raises InvalidJson: the body is not JSON.
    :raises EmptyArray: it is an array of nothing.
    """
    try:
        body.decode()
        text = bytes(_check(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = _second_opinion(body, error)
    if text[0] != 0x5B:
        return text + b","
    inside = text[1:-1].strip(_WHITESPACE)
    if inside:
        return inside + b","
    if empty_allowed:
        return b""
    raise EmptyArray("The array has no messages. Append one at least.")


def first_data(body: bytes, json: bool) -> bytes:
    """
    Bring the body of a creation into the wire form of the stream that it makes; of nothing, nothing is made.

    :raises InvalidJson: the stream is JSON, and the body is not.
    """
    return wire_form(body, empty_allowed=True) if json and body else body


def _second_opinion(body: bytes, error: Exception) -> bytes:
    """Half of a surrogate pair, escaped, is JSON, and what a cut token stream is made of; msgspec refuses it."""
    if isinstance(error, UnicodeDecodeError):
        raise InvalidJson(f"The body is not UTF-8: look at byte {error.start}.") from None
    if body.startswith(codecs.BOM_UTF8):
        raise InvalidJson("The body begins with a UTF-8 byte order mark. Send the JSON without these three bytes.")
    try:
        _check(_without_surrogates(body))
    except RecursionError:
        raise InvalidJson("The body is nested too deeply.") from None
    except msgspec.DecodeError as reason:
        raise InvalidJson(f"The body is not valid JSON. {reason}") from None
    return body.strip(_WHITESPACE)


def _without_surrogates(text: bytes) -> bytes:
    """
    Replace the escapes of U+D000 to U+DFFF, among which the surrogates are, by those of U+0000 to U+0FFF.

    The text keeps its length, and is JSON if it was. A regular expression took 150 ms for 10 MB of them, this takes 20.
    """
    return text.replace(rb"\ud", rb"\u0").replace(rb"\uD", rb"\u0")


def document(messages: bytes) -> bytes:
    """Make the one array that answers a read out of messages in wire form."""
    return b"[" + messages[:-1] + b"]"


def boundaries(messages: bytes) -> Iterator[int]:
    """Yield the positions at which messages in wire form begin, and the one at which the last of them ends."""
    return (edge for edge in scan(messages) if edge is not None)


def scan(messages: bytes) -> Iterator[int | None]:
    """
    Yield what :func:`boundaries` does, and None now and then, where the caller may let others have their turn.

    The messages were found to be JSON when they were accepted, so it is enough to count brackets outside strings.
    """
    yield 0
    depth = 0
    start = 0
    while start < len(messages):
        pause = start + _BYTES_AT_ONCE
        for count, match in enumerate(_TOKEN.finditer(messages, start), 1):
            start = match.end()
            mark = match[1]
            if mark == b",":
                if not depth:
                    yield start
            elif mark in _OPENING:
                depth += 1
            elif mark in _CLOSING:
                depth -= 1
            elif mark == b'"':
                break
            if not count % _TOKENS_AT_ONCE or start >= pause:
                pause = start + _BYTES_AT_ONCE
                yield None
        else:
            return
        while text := _TEXT.match(messages, start):
            start = text.end()
            yield None
        start += 1
