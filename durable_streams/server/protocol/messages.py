"""JSON mode: conversion of bodies to the wire form of messages, and of messages to one array (PROTOCOL section 9.1).

The wire form of a JSON stream is each message's bytes as received, followed by a comma. A body that is an array has
this form between its brackets, so a batch is validated as a whole and not split.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Generator, Iterator
from itertools import count as numbers

import msgspec

from ..errors import EmptyArray, InvalidJson

_WHITESPACE = b" \t\n\r"
_check = msgspec.json.Decoder(msgspec.Raw).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode

#: At most two strings with the text around them, then a bracket or a comma, or nothing before the quote of a string of
#: more than a few KiB or escapes. Each repetition is possessive and bounded, so that a match takes less than 1 ms.
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

#: A piece of a long string.
_TEXT = re.compile(rb'(?:[^"\\]{1,4096}+|\\.){1,64}+', re.DOTALL)

#: Up to this size, and with this many commas, :func:`single_values` parses messages at once: at most about 20 ms, and
#: 10 MiB of memory for their objects.
_PARSED_BYTES = 4_194_304
_PARSED_COMMAS = 131_072

#: The number of tokens, or bytes, between two pauses of :func:`scan`: about half a millisecond.
_TOKENS_AT_ONCE = 1024
_BYTES_AT_ONCE = 65_536


def wire_form(body: bytes, empty_allowed: bool = False) -> bytes:
    """
    Convert a request's body to messages in wire form.

    :param empty_allowed: whether an empty array is accepted.
    :raises InvalidJson: the body is not JSON.
    :raises EmptyArray: the body is an empty array.
    """
    try:
        if not body.isascii():
            body.decode()
        text = bytes(_check(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = _check_with_surrogates(body, error)
    if text[0] != 0x5B:
        return text + b","
    inside = text[1:-1].strip(_WHITESPACE)
    if inside:
        return inside + b","
    if empty_allowed:
        return b""
    raise EmptyArray("The array has no messages. Append at least one.")


def first_data(body: bytes, json: bool) -> bytes:
    """
    Convert the body of a create request to the wire form of the new stream. An empty body stays empty.

    :raises InvalidJson: the stream is in JSON mode and the body is not JSON.
    """
    return wire_form(body, empty_allowed=True) if json and body else body


def _check_with_surrogates(body: bytes, error: Exception) -> bytes:
    """
    Validate a body again with lone surrogate escapes allowed, and return it without surrounding whitespace.

    An escaped half of a surrogate pair is valid JSON, and token streams that are cut there contain it, but msgspec
    rejects it.

    :param error: why the body was rejected at first.
    :raises InvalidJson: the body is not JSON.
    """
    if isinstance(error, UnicodeDecodeError):
        raise InvalidJson(f"The body is not UTF-8 at byte {error.start}.") from None
    if body.startswith(codecs.BOM_UTF8):
        raise InvalidJson("The body begins with a UTF-8 byte order mark. Send it without these three bytes.")
    try:
        _check(_without_surrogates(body))
    except RecursionError:
        raise InvalidJson("The body is nested too deeply.") from None
    except msgspec.DecodeError as reason:
        raise InvalidJson(f"The body is not valid JSON. {reason}") from None
    return body.strip(_WHITESPACE)


def _without_surrogates(text: bytes) -> bytes:
    """
    Replace the escapes of U+D000 to U+DFFF, which include the surrogates, by those of U+0000 to U+0FFF.

    The text keeps its length and stays JSON if it was. This takes 20 ms for 10 MB of escapes, a regular expression 150.
    """
    return text.replace(rb"\ud", rb"\u0").replace(rb"\uD", rb"\u0")


def compact(text: bytes) -> bytes:
    """
    Return one JSON value without insignificant whitespace. Its numbers, strings and order of keys stay as they are.

    :raises InvalidJson: the text is not exactly one JSON value.
    """
    steps = compact_in_steps(text)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def compact_in_steps(text: bytes) -> Generator[None, None, bytes]:
    """Do the same as :func:`compact`; for a text of 10 MB, a step takes at most some 30 ms."""
    try:
        text.decode()
        return msgspec.json.format(text, indent=-1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = error
    valid = _check_with_surrogates(text, reason)
    yield
    if not _has_whitespace(valid):
        return valid
    mark = _free_mark(valid)
    yield
    masked = yield from _mask(valid, mark)
    short = msgspec.json.format(masked, indent=-1)
    yield
    return (yield from _unmask(short, mark))


def _has_whitespace(text: bytes) -> bool:
    return any(space in text for space in (b" ", b"\n", b"\t", b"\r"))


def single_values(messages: bytes) -> Iterator[bytes | None]:
    """
    Yield each message in wire form as compact text, without its comma, and None at regular intervals.

    Up to 4 MiB are parsed at once. Of more, each message is found by :func:`scan`, at about a tenth of that speed.
    """
    if len(messages) > _PARSED_BYTES or messages.count(b",") > _PARSED_COMMAS:
        yield from _scanned_values(messages)
        return
    array = document(messages)
    mark = b""
    try:
        values = _elements(array)
    except msgspec.DecodeError:
        # Lone surrogates; the messages were validated when they were accepted.
        mark = _free_mark(array)
        yield None
        array = yield from _mask(array, mark)
        values = _elements(array)
    if _has_whitespace(array):
        yield None
        values = _elements(msgspec.json.format(array, indent=-1))
    for raw in values:
        yield (yield from _unmask(bytes(raw), mark)) if mark else bytes(raw)
    yield None


def _scanned_values(messages: bytes) -> Iterator[bytes | None]:
    start = 0
    for edge in scan(messages):
        if edge is None:
            yield None
        elif edge:
            yield (yield from compact_in_steps(messages[start : edge - 1]))
            start = edge


def _mask(text: bytes, mark: bytes) -> Generator[None, None, bytes]:
    r"""
    Replace the escapes of U+D000 to U+DFFF, which msgspec may reject, by ``\u0000``, a mark, and their last digits.

    A text that has ``\ud`` after an escaped backslash stays JSON, too.
    """
    for digit in (b"d", b"D"):
        text = text.replace(rb"\u" + digit, rb"\u0000" + digit + mark)
        yield
    return text


def _unmask(text: bytes, mark: bytes) -> Generator[None, None, bytes]:
    """Undo :func:`_mask`."""
    for digit in (b"d", b"D"):
        text = text.replace(rb"\u0000" + digit + mark, rb"\u" + digit)
        yield
    return text


def _free_mark(text: bytes) -> bytes:
    """Return the first of the marks ``<0>``, ``<1>`` and so on that is not in a text."""
    return next(mark for mark in (b"<%d>" % number for number in numbers()) if mark not in text)


def document(messages: bytes) -> bytes:
    """Return messages in wire form as one JSON array, the answer to a read."""
    return b"[" + messages[:-1] + b"]"


def boundaries(messages: bytes) -> Iterator[int]:
    """Yield the start position of each message in wire form, then the end position of the last one."""
    return (edge for edge in scan(messages) if edge is not None)


def scan(messages: bytes) -> Iterator[int | None]:
    """
    Yield the positions of :func:`boundaries`, and None at regular intervals, where the caller may pause.

    The messages were validated when they were accepted, so counting brackets outside strings is sufficient.
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
