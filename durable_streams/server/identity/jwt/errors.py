"""The exceptions of JWT authentication."""

from __future__ import annotations


class TokenRefused(Exception):
    """
    A token is not valid. The message is a sentence for the client, without any part of the token.

    It is sent as ``error_description`` (RFC 6750), so it has neither quotes nor characters beyond ASCII.
    """


class KeysUnusable(Exception):
    """A set of keys cannot be used; the message has its source, and what to change."""


class KeysUnavailable(Exception):
    """The keys cannot be fetched now; the message is a sentence for the client, without the URL."""
