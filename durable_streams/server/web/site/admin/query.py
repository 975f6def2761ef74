"""The query parameters of the pages for operators. An unknown one is refused: a misspelt filter must not find more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlencode

from ....errors import InvalidRequest
from ...pages import PageRequest

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")


class Query:
    """
    The parameters of a request. One without a value is the same as none.

    :param known: the names of the parameters that may be sent once.
    :param lists: the names of those that may be sent several times.
    :raises InvalidRequest: there is another parameter, or one was sent twice, or is not UTF-8.
    """

    def __init__(self, request: PageRequest, known: Sequence[str], lists: Sequence[str] = ()) -> None:
        self._known = known
        self._values: dict[str, list[str]] = {}
        for name, values in request.arguments().items():
            try:
                key, texts = name.decode(), [value.decode() for value in values]
            except UnicodeDecodeError:
                shown = name.decode("ascii", "backslashreplace")
                raise InvalidRequest(f"The parameter {shown} must be UTF-8, percent-encoded.") from None
            if key not in known and key not in lists:
                raise InvalidRequest(f"There is no parameter {key}. {_list_of((*known, *lists))}")
            if key in known and len(texts) > 1:
                raise InvalidRequest(f"The parameter {key} was sent twice. Send it once.")
            self._values[key] = [text for text in texts if text]

    def text(self, name: str) -> str:
        """Return the value of a parameter; empty if it was not sent."""
        values = self._values.get(name)
        return values[0] if values else ""

    def texts(self, name: str) -> list[str]:
        """Return all values of a parameter."""
        return self._values.get(name, [])

    def word(self, name: str, words: Sequence[str]) -> str:
        """
        Return the value of a parameter that is one of some words; empty if it was not sent.

        :raises InvalidRequest: it is another word.
        """
        text = self.text(name)
        if text and text not in words:
            raise InvalidRequest(f"The parameter {name} must be {' or '.join(words)}.")
        return text

    def number(self, name: str, max_number: int) -> int | None:
        """
        Return the value of a parameter that is a number from 1; None if it was not sent.

        :raises InvalidRequest: it is no number, or is larger.
        """
        text = self.text(name)
        if not text:
            return None
        if not _NUMBER.fullmatch(text) or int(text) > max_number:
            raise InvalidRequest(f"The parameter {name} must be a number from 1 to {max_number}.")
        return int(text)

    def next_page(self, last: str) -> bytes:
        """
        Return the header line Link, with the query of the page after this one.

        It refers to the same path, which a proxy or a resource may have another name for.

        :param last: the name of the last item of this page, for the parameter ``after``.
        """
        values = {name: self.text(name) for name in self._known if self.text(name)}
        return b'Link: <?%b>; rel="next"\r\n' % urlencode({**values, "after": last}).encode()


def _list_of(names: Iterable[str]) -> str:
    found = list(names)
    return f"This page has {', '.join(found)}." if found else "This page has no parameters."
