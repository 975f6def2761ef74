"""Advice about answers 401 and 403 of a server: which option gives a token or a certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .options import TOKEN_VARIABLE

if TYPE_CHECKING:
    from ..client import Refusal

_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403


def advice_about(error: Refusal, has_token: bool, has_certificate: bool = False) -> str:
    """
    Return a sentence to put after a server's own, with a space before it; empty if there is nothing to add.

    :param has_token: whether the request had a token.
    :param has_certificate: whether the connection was made with a client certificate.
    """
    if error.status == _UNAUTHORIZED:
        if has_token:
            return f" The token is that of --token-file, --token or {TOKEN_VARIABLE}: replace it."
        if has_certificate:
            return f" Give another certificate with --cert, or a token with --token-file FILE or {TOKEN_VARIABLE}."
        return f" Give a token with --token-file FILE or {TOKEN_VARIABLE}."
    if error.status == _FORBIDDEN and error.code in ("", "FORBIDDEN"):
        return (
            " On the server's machine, durable-streams-server authorize explains which rule decides."
            if has_token or has_certificate
            else f" Give a token that may do this with --token-file FILE or {TOKEN_VARIABLE}."
        )
    return ""
