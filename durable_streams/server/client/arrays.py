"""Incremental splitting of a JSON array into its elements, whose bytes are kept as they were sent."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from .errors import InvalidAnswer

_WHITESPACE: Final = b" \t\r\n"

#: How much of an array is split at once, in bytes.
_STEP: Final = 131_072

#: How many commas are tried as the end of an element before the text is scanned.
_GUESSES: Final = 8

#: Outside of strings: what changes the depth or separates elements.
_MARK: Final = re.compile(rb'["\[\]{},]')

#: The rest of a string, after its opening quote.
_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.DOTALL)

_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


def split_array(text: bytes) -> list[bytes]:
    """
    Return the elements of a JSON array.

    :raises InvalidAnswer: the text is not a JSON array.
    """
    splitter = ArraySplitter(len(text))
    return [*splitter.feed(text), *splitter.finish()]


class ArraySplitter:
    """
    Splits a JSON array that arrives in pieces.

    :param limit: the largest element, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: What was not split yet. After the opening bracket was removed, it begins with an element.
        self._text = bytearray()
        self._is_begun = False
        self._has_elements = False
        self._next_size = _STEP

    def feed(self, piece: bytes) -> list[bytes]:
        """
        Return the next elements, if many are complete. The others come later, or from :meth:`finish`.

        :raises InvalidAnswer: the text is not a JSON array, or an element is larger than the limit.
        """
        self._text += piece
        if len(self._text) < self._next_size or not self._begin():
            return []
        elements, end = _complete_elements(bytes(self._text))
        if elements:
            self._has_elements = True
            del self._text[:end]
            self._next_size = len(self._text) + _STEP
        else:
            # Twice as much the next time, so that a large element is not scanned again and again.
            self._next_size = 2 * len(self._text)
        if len(self._text) > self._limit + _STEP:
            raise self._too_large()
        return self._checked(elements)

    def finish(self) -> list[bytes]:
        """
        Return the last elements.

        :raises InvalidAnswer: the array is not complete, or an element is larger than the limit.
        """
        if not self._begin():
            raise _no_array()
        rest = bytes(self._text).rstrip(_WHITESPACE)
        inside = rest[:-1].strip(_WHITESPACE)
        if not rest.endswith(b"]") or (self._has_elements and not inside):
            raise _no_array()
        if not inside:
            return []
        elements = _decoded(inside)
        if elements is None:
            elements, end = _scanned(inside + b",")
            if end != len(inside) + 1:
                raise _no_array()
        return self._checked(elements)

    def _begin(self) -> bool:
        """Remove the opening bracket; return False if nothing has arrived."""
        if not self._is_begun:
            text = self._text.lstrip(_WHITESPACE)
            if not text:
                return False
            if text[:1] != b"[":
                raise _no_array()
            self._text = text[1:]
            self._is_begun = True
        return True

    def _checked(self, elements: list[bytes]) -> list[bytes]:
        if elements and max(map(len, elements)) > self._limit:
            raise self._too_large()
        return elements

    def _too_large(self) -> InvalidAnswer:
        return InvalidAnswer(
            f"The stream has a JSON message of more than {self._limit} bytes. Raise the limit (max_message_bytes)."
        )


def _no_array() -> InvalidAnswer:
    return InvalidAnswer("The server's answer is not a JSON array.")


def _decoded(elements: bytes) -> list[bytes] | None:
    """Return elements that are separated by commas, or None if the text is something else, or not JSON to msgspec."""
    try:
        return [bytes(element) for element in _decode(b"[%b]" % elements)]
    except (msgspec.DecodeError, RecursionError):
        return None


def _complete_elements(text: bytes) -> tuple[list[bytes], int]:
    """Return the complete elements at the beginning of a text, and the position after the last one's comma."""
    mark = {b"{": b"},", b"[": b"],", b'"': b'",'}.get(text.lstrip(_WHITESPACE)[:1], b",")
    place = len(text)
    for _ in range(_GUESSES):
        place = text.rfind(mark, 0, place)
        if place < 0:
            break
        end = place + len(mark)
        # If the text before the comma is valid JSON, the comma is not inside of an element.
        elements = _decoded(text[: end - 1])
        if elements is not None:
            return elements, end
    return _scanned(text)


def _scanned(text: bytes) -> tuple[list[bytes], int]:
    """
    Return the same as :func:`_complete_elements`, by counting brackets.

    This accepts what msgspec does not: lone surrogates in escapes, and any nesting. Values are not checked.
    """
    elements: list[bytes] = []
    start = place = depth = 0
    while (match := _MARK.search(text, place)) is not None:
        place = match.end()
        mark = match[0]
        if mark == b'"':
            string = _STRING.match(text, place)
            if string is None:
                break
            place = string.end()
        elif mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
            if depth < 0:
                break
        elif not depth:
            element = text[start : place - 1].strip(_WHITESPACE)
            if not element:
                raise _no_array()
            elements.append(element)
            start = place
    return elements, start
