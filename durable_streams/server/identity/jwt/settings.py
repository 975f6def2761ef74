"""The settings of JWT authentication, and what they must not be."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

#: Algorithms with a public key (RFC 7518 and RFC 8037).
PUBLIC_KEY_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)

#: Algorithms with a shared secret, which whoever verifies tokens could make them with.
SHARED_SECRET_ALGORITHMS: Final = ("HS256", "HS384", "HS512")

_SOURCES: Final = ("keys_file", "jwks_url", "discovery_url")


class JwtSettings(Struct, frozen=True):
    """
    The settings of JWT authentication: where the keys are, and what a token must claim. ``_secs`` is a unit.

    One of ``keys_file``, ``jwks_url`` and ``discovery_url`` must be set.

    :ivar keys_file: the path of a JWK set or of PEM keys; mode 0600 if it has private or symmetric keys.
    :ivar jwks_url: the URL of a JWK set: https, or http on a loopback address.
    :ivar discovery_url: the URL of the issuer's metadata, which has the URL of the JWK set (``jwks_uri``).
    :ivar ca_file: a PEM file of the authorities that sign the certificate of the URL; None for those of the system.
    :ivar algorithms: the accepted algorithms; the HS ones only with keys_file.
    :ivar issuer: what ``iss`` must be; None to accept any.
    :ivar audience: ``aud`` must have one of them; if empty, tokens with ``aud`` are refused (RFC 7519 section 4.1.3).
    :ivar leeway_secs: how far the issuer's clock may differ.
    :ivar required_claims: claims that a token must have: ``NAME``, or ``NAME=VALUE``; ``exp`` and the subject always
        are. A name with dots leads into nested claims.
    :ivar subject_claim: the claim that is the principal's subject.
    :ivar groups_claim: the claim with the principal's groups: a list of strings, or one string.
    :ivar refresh_secs: how often the keys of a URL are fetched.
    :ivar max_stale_secs: how long the keys are used after the last successful fetch.
    """

    keys_file: str | None = None
    jwks_url: str | None = None
    discovery_url: str | None = None
    ca_file: str | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    issuer: str | None = None
    audience: tuple[str, ...] = ()
    leeway_secs: int = 30
    required_claims: tuple[str, ...] = ()
    subject_claim: str = "sub"
    groups_claim: str = "groups"
    refresh_secs: int = 300
    max_stale_secs: int = 86_400

    def problems(self) -> Iterator[str]:
        """
        Yield a sentence for each setting that cannot be used.

        The sentences begin with the setting's full name. Files are not opened and URLs not fetched.
        """
        yield from _problems_of_keys(self)
        yield from _problems_of_algorithms(self)
        yield from _problems_of_claims(self)


def _problems_of_keys(settings: JwtSettings) -> Iterator[str]:
    given = [name for name in _SOURCES if getattr(settings, name) is not None]
    if len(given) != 1:
        found = " and ".join(f"auth.jwt.{name}" for name in given) or "none of them"
        yield (
            f"auth.jwt.keys_file, auth.jwt.jwks_url and auth.jwt.discovery_url: exactly one must be set, not {found}. "
            "Set where the issuer's public keys are."
        )
    for name in ("jwks_url", "discovery_url"):
        url = getattr(settings, name)
        if url is not None and (objection := objection_to_url(url)):
            yield f"auth.jwt.{name}: {objection}"
    if settings.keys_file is None and not settings.issuer:
        yield "auth.jwt.issuer: must be set for keys of a URL. Set it to what the tokens have as iss."
    if settings.ca_file is not None and settings.keys_file is not None:
        yield "auth.jwt.ca_file: has no effect with auth.jwt.keys_file. Remove one of them."
    if not 10 <= settings.refresh_secs <= 86_400:
        yield f"auth.jwt.refresh_secs: must be 10 to 86400, not {settings.refresh_secs}."
    if not settings.refresh_secs < settings.max_stale_secs <= 2_592_000:
        yield (
            f"auth.jwt.max_stale_secs: must be more than auth.jwt.refresh_secs ({settings.refresh_secs}) and at most "
            f"2592000, not {settings.max_stale_secs}."
        )


def _problems_of_algorithms(settings: JwtSettings) -> Iterator[str]:
    if not settings.algorithms:
        yield "auth.jwt.algorithms: must have at least one algorithm."
    for algorithm in settings.algorithms:
        if algorithm in SHARED_SECRET_ALGORITHMS:
            if settings.keys_file is None:
                yield (
                    f"auth.jwt.algorithms: {algorithm} needs a secret, which a URL must not have. Remove it, or set "
                    "auth.jwt.keys_file."
                )
        elif algorithm not in PUBLIC_KEY_ALGORITHMS:
            known = ", ".join((*PUBLIC_KEY_ALGORITHMS, *SHARED_SECRET_ALGORITHMS))
            yield f"auth.jwt.algorithms: {algorithm!r} is not one of {known}."


def _problems_of_claims(settings: JwtSettings) -> Iterator[str]:
    if settings.issuer == "" and settings.keys_file is not None:
        yield "auth.jwt.issuer: must not be empty. Leave it out to accept any issuer of the keys in auth.jwt.keys_file."
    if "" in settings.audience:
        yield "auth.jwt.audience: must not have an empty value."
    if not 0 <= settings.leeway_secs <= 600:
        yield f"auth.jwt.leeway_secs: must be 0 to 600, not {settings.leeway_secs}. Synchronise the clocks instead."
    for name in ("subject_claim", "groups_claim"):
        if not getattr(settings, name):
            yield f"auth.jwt.{name}: must not be empty."
    for required in settings.required_claims:
        if not required.partition("=")[0]:
            yield f"auth.jwt.required_claims: {required!r} has no name. Write NAME or NAME=VALUE."


def objection_to_url(url: str) -> str | None:
    """Return why keys must not be fetched from a URL, as a sentence that does not show a password; None if they may."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a valid URL. Write https://HOST/PATH."
    if port == 0 or not host or parts.scheme not in ("http", "https") or not _is_visible_ascii(url):
        return "is not a URL of http or https in ASCII. Write https://HOST/PATH."
    if parts.username is not None or parts.password is not None:
        return "must not have a user or password: public keys need none."
    if parts.fragment:
        return "must not have a fragment (#...)."
    if parts.scheme == "http" and not _is_loopback(parts):
        return (
            f"must be https, not http://{host}: whoever is on the way could replace the keys. Plain http is accepted "
            "for loopback addresses only."
        )
    return None


def _is_visible_ascii(url: str) -> bool:
    return all("!" <= character <= "~" for character in url)


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
