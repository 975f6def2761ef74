"""The checkers of credentials of a server, created from its settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict
from twisted.cred.portal import Portal

from ..config.settings import Settings
from ..config.validation import unusable
from ..identity.bearer import BearerChecker
from ..identity.certificates import CertificateChecker
from ..identity.control import Source
from ..identity.proxy_identity import ProxyIdentityChecker
from ..identity.signing_keys import SigningKeysError
from ..identity.sources import SigningKeysSource
from ..identity.tokens.checker import StaticTokens
from ..identity.tokens.file import TokenFileError

if TYPE_CHECKING:
    from ..identity.jwt.checker import JwtChecker


def register_checkers(portal: Portal, settings: Settings, reactor: Any) -> list[Source]:
    """
    Register the checkers of all methods.

    :param reactor: the time, the thread for files, and the network for keys.
    :returns: those that read files or fetch keys.
    :raises ConfigError: a file cannot be used, or a setting of JWTs is invalid.
    """
    methods = settings.auth.methods
    sources: list[Source] = []
    tokens = jwt = None
    if "token" in methods:
        tokens = _tokens_from(settings, reactor)
        sources.append(tokens)
    if "jwt" in methods:
        jwt = _jwt_checker_from(settings, reactor)
        sources.append(jwt)
    if sources:
        portal.registerChecker(BearerChecker(tokens, jwt))
    if "certificate" in methods:
        portal.registerChecker(CertificateChecker(settings.auth.certificate_name))
    if "header" in methods:
        portal.registerChecker(ProxyIdentityChecker())
    if "signed-url" in methods:
        keys = _signing_keys_from(settings, reactor)
        portal.registerChecker(keys.checker)
        sources.append(keys)
    return sources


def _tokens_from(settings: Settings, reactor: Any) -> StaticTokens:
    path = settings.auth.token_file
    assert path is not None, "the settings have a rule about it"
    try:
        return StaticTokens(path, reactor)
    except TokenFileError as error:
        raise unusable("InvalidTokenFile", f"auth.token_file: {error}") from None


def _jwt_checker_from(settings: Settings, reactor: Any) -> JwtChecker:
    from ..identity.jwt.checker import jwt_checker  # noqa: PLC0415 (22 ms, and other methods do not need it)
    from ..identity.jwt.errors import KeysUnusable  # noqa: PLC0415
    from ..identity.jwt.settings import JwtSettings  # noqa: PLC0415

    values = asdict(settings.auth.jwt)
    if values["ca_file"] is not None:
        # An error names the absolute path.
        values["ca_file"] = os.path.abspath(values["ca_file"])
    try:
        return jwt_checker(JwtSettings(**values), reactor)
    except KeysUnusable as error:
        raise unusable("InvalidJwtSettings", str(error)) from None


def _signing_keys_from(settings: Settings, reactor: Any) -> SigningKeysSource:
    path = settings.auth.signing_keys_file
    assert path is not None, "the settings have a rule about it"
    try:
        return SigningKeysSource(path, reactor)
    except SigningKeysError as error:
        raise unusable("InvalidSigningKeysFile", f"auth.signing_keys_file: {error}") from None
