"""Authentication by JSON Web Tokens (RFC 7519) that an issuer has signed.

A token is parsed strictly, its key is looked up by the key id, its signature is verified with the one algorithm that
key and header agree on, and then its claims are checked: :class:`JwtChecker`. The keys are those of a file
(:class:`.FileKeys`) or of a URL (:class:`.RemoteKeys`).
"""

from __future__ import annotations

from .checker import JwtChecker, jwt_checker
from .errors import KeysUnusable
from .settings import JwtSettings

__all__ = ["JwtChecker", "JwtSettings", "KeysUnusable", "jwt_checker"]
