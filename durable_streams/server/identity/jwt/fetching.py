"""Fetching of small documents over HTTP with verified TLS, and with limits on time and size."""

from __future__ import annotations

import os
from typing import Any, Final, NoReturn
from urllib.parse import urljoin, urlsplit

from msgspec import Struct
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from ...answer_bodies import BodyReader
from ...connection_failures import ConnectionFailure, classify, tls_reasons
from ...guarded_endpoints import EndpointFactory, GuardedEndpoint
from ...pem_certificates import parse_certificates
from ...regular_files import file_errors_as, open_regular_file
from ...release import DISTRIBUTION, version_of_server
from .errors import KeysUnusable

_USER_AGENT: Final = f"{DISTRIBUTION}/{version_of_server()}"
_MAX_CA_BYTES: Final = 1 << 20
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_log = Logger()


class FetchLimits(Struct, frozen=True):
    """
    Limits of a fetch, in seconds and bytes.

    :ivar total: of the whole fetch, with the look-up of the host and redirects.
    :ivar max_head: of the head of an answer, with interim ones before it.
    :ivar max_redirects: all of them to the same scheme, host and port.
    """

    total: float = 5.0
    max_head: int = 16_384
    max_body: int = 262_144
    max_redirects: int = 3


class FetchFailed(Exception):
    """A document could not be fetched; the message is the end of a sentence, for the log."""


class Fetcher:
    """
    Fetches documents. Each fetch has a connection of its own, and trusts what is in the file of authorities then.

    :param reactor: for connections and time.
    :param ca_file: a PEM file of authorities; None for those of the system.
    """

    def __init__(self, reactor: Any, ca_file: str | None = None, limits: FetchLimits | None = None) -> None:
        self.reactor = reactor
        # twistd changes the current directory later.
        self.ca_file = None if ca_file is None else os.path.abspath(ca_file)
        self.limits = FetchLimits() if limits is None else limits

    def fetch(self, url: str) -> Deferred[bytes]:
        """
        Fetch a document.

        If the Deferred is cancelled, the connection is aborted.

        :param url: of http or https, in ASCII.
        :raises FetchFailed: there is no answer 200 with a body within the limits.
        """
        return Deferred.fromCoroutine(_Fetch(self, url).run())


def shown_url(url: str) -> str:
    """Return a URL for the log, without its query."""
    return url.partition("?")[0]


def load_authorities(path: str) -> Any:
    """
    Load the authorities of a file as trust roots.

    :raises KeysUnusable: the file cannot be read, or has no certificate or a damaged one.
    """
    where = f"auth.jwt.ca_file {path!r}"
    with file_errors_as(KeysUnusable, where, "a PEM file"), open_regular_file(path) as file:
        pem = file.read(_MAX_CA_BYTES + 1)
    try:
        certificates = parse_certificates(pem) if len(pem) <= _MAX_CA_BYTES else []
    except ValueError:
        raise KeysUnusable(f"{where}: a certificate is damaged. Replace it.") from None
    if not certificates:
        raise KeysUnusable(f"{where}: must have PEM certificates, at most {_MAX_CA_BYTES} bytes.")
    return trustRootFromCertificates([Certificate(X509.from_cryptography(each)) for each in certificates])


class _Fetch:
    """A fetch that runs."""

    def __init__(self, fetcher: Fetcher, url: str) -> None:
        self._reactor = fetcher.reactor
        self._limits = fetcher.limits
        self._ca_file = fetcher.ca_file
        self._url = url
        self._endpoints: list[GuardedEndpoint] = []

    async def run(self) -> bytes:
        running = Deferred.fromCoroutine(self._get())
        running.addTimeout(self._limits.total, self._reactor, _expired)
        try:
            return await running
        except FetchFailed:
            raise
        except Exception as error:
            raise _explained(Failure(error)) from None
        finally:
            for endpoint in self._endpoints:
                endpoint.abort()

    async def _get(self) -> bytes:
        url = self._url
        for _ in range(self._limits.max_redirects + 1):
            response = await self._answer(url)
            if response.code not in _REDIRECTS:
                return await self._body(response)
            url = _redirected(url, response)
        raise FetchFailed(f"was redirected more than {self._limits.max_redirects} times")

    async def _answer(self, url: str) -> IResponse:
        """Send a request. Return the answer once its head has arrived."""
        agent = Agent.usingEndpointFactory(self._reactor, EndpointFactory(self._endpoint))
        headers = Headers()
        headers.setRawHeaders("User-Agent", [_USER_AGENT])
        headers.setRawHeaders("Accept", ["application/json, application/jwk-set+json"])
        headers.setRawHeaders("Accept-Encoding", ["identity"])
        response: IResponse = await agent.request(b"GET", url.encode("ascii"), headers)
        return response

    def _endpoint(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii").strip("[]")
        endpoint: IStreamClientEndpoint = HostnameEndpoint(self._reactor, host, uri.port, self._limits.total)
        if uri.scheme == b"https":
            try:
                trusted = platformTrust() if self._ca_file is None else load_authorities(self._ca_file)
            except KeysUnusable as error:
                reason = str(error).removesuffix(".")
                raise FetchFailed(f"cannot use the file of authorities: {reason}") from None
            endpoint = wrapClientTLS(optionsForClientTLS(host, trustRoot=trusted), endpoint)
        guarded = GuardedEndpoint(self._reactor, endpoint, self._limits.max_head, _bad_head)
        self._endpoints.append(guarded)
        return guarded

    async def _body(self, response: IResponse) -> bytes:
        limit = self._limits.max_body
        if response.code != 200:
            raise FetchFailed(f"was answered with status {response.code}, not 200")
        codings = response.headers.getRawHeaders(b"content-encoding", [])
        if any(coding.strip().lower() not in (b"", b"identity") for coding in codings):
            raise FetchFailed("was answered with a compressed body, which was not asked for")
        if response.length is not UNKNOWN_LENGTH and response.length > limit:
            raise FetchFailed(f"was answered with more than {limit} bytes")
        reader = BodyReader(limit, lambda: FetchFailed(f"was answered with more than {limit} bytes"))
        response.deliverBody(reader)
        return await reader.done


def _expired(_: object, seconds: float) -> NoReturn:
    raise FetchFailed(f"took more than {seconds:g} seconds")


def _redirected(url: str, response: IResponse) -> str:
    """
    Return the URL to which an answer redirects.

    :raises FetchFailed: it has none, or one of another origin: that was not chosen by the operator.
    """
    locations = response.headers.getRawHeaders(b"location", [])
    try:
        target: str = urljoin(url, locations[0].decode("ascii"))
        if not all("!" <= character <= "~" for character in target):
            raise ValueError
        old, new = urlsplit(url), urlsplit(target)
        is_same = (old.scheme, old.netloc) == (new.scheme, new.netloc)
    except (IndexError, ValueError):
        raise FetchFailed(f"was answered with status {response.code} without a valid Location") from None
    if not is_same:
        raise FetchFailed("was redirected to another host or port; set the URL to where the keys are")
    return target


#: Class of a failed request -> the end of a sentence.
_FAILURES: Final = {
    ConnectionFailure.REFUSED: "failed: the connection was refused",
    ConnectionFailure.TIMEOUT: "failed: the host did not accept the connection in time",
    ConnectionFailure.WRONG_HOST: "failed: the certificate is for another host",
    ConnectionFailure.CONNECT: "failed: the host cannot be found or reached",
    ConnectionFailure.BROKEN: "failed: the connection broke before the answer was complete",
    ConnectionFailure.NOT_HTTP: "failed: the answer is not valid HTTP",
}


_CANCELLED: Final = (CancelledError, ConnectingCancelledError)


def _explained(failure: Failure) -> FetchFailed:
    cause, kind = classify(failure, (FetchFailed, DNSLookupError, *_CANCELLED))
    if isinstance(cause, FetchFailed):
        return cause
    if isinstance(cause, _CANCELLED):
        return FetchFailed("was cancelled")
    if isinstance(cause, DNSLookupError):
        return FetchFailed("failed: the DNS lookup of the host failed")
    if isinstance(cause, SSL.Error):
        text = tls_reasons(cause) or "the server ended it"
        advice = "; auth.jwt.ca_file names other authorities" if "certificate verify failed" in text else ""
        return FetchFailed(f"failed: the TLS handshake failed ({text}{advice})")
    if kind is None:
        _log.failure("The fetch of a document failed.", failure)
        return FetchFailed("failed because of an internal error, which the log has")
    return FetchFailed(_FAILURES[kind])


def _bad_head(sentence: str) -> FetchFailed:
    """Return the failure of an answer whose head is refused."""
    return FetchFailed(f"failed: {sentence[0].lower()}{sentence[1:].rstrip('.')}")
