"""Certificates that are reloaded when their files change, and a TLS factory that uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from ...clocks import clock_of
from ...web.negotiation import ClosedConnection
from .connections import DirectTLS
from .contexts import Identity, TLSContextError, VersionRange, build_context, read_identity
from .files import (
    Contents,
    Signature,
    TLSFileError,
    TLSFiles,
    is_open_to_all,
    read_files,
    signature_of,
)

#: The interval between two checks whether the files have changed, in seconds.
CHECK_INTERVAL: Final = 5.0

_log = Logger()


def protocols_of(factory: Any) -> tuple[bytes, ...]:
    """Return the ALPN names of a factory's protocols, preferred ones first; empty if the factory does not have them."""
    while factory is not None:
        if IProtocolNegotiationFactory.providedBy(factory):
            return tuple(factory.acceptableProtocols())
        factory = getattr(factory, "wrappedFactory", None)
    return ()


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """
    Certificates that are reloaded when their files change. Open connections keep theirs.

    :param contents: the contents of the files if they were read already.
    :param http2: whether HTTP/2 is offered; None for what each factory offers.
    :raises TLSFileError: a file cannot be read.
    :raises TLSContextError: a file does not have what TLS needs.
    """

    def __init__(
        self,
        files: TLSFiles,
        versions: VersionRange = VersionRange(),  # noqa: B008 (frozen)
        contents: Contents | None = None,
        http2: bool | None = None,
    ) -> None:
        self.files = files
        self._versions = versions
        self._http2 = http2
        contents = contents or read_files(files)
        self._seen: Signature = contents.signature
        self._context, self._identity = self._build(contents)
        if is_open_to_all(files.key):
            _log.warn("{file}: every user of this machine may read the private key. Use chmod o-r.", file=files.key)

    def _build(self, contents: Contents) -> tuple[SSL.Context, Identity]:
        identity = read_identity(self.files, contents)
        context = build_context(self.files, identity, self._versions, self._choose)
        if identity.has_expired():
            _log.warn(
                "{file}: the certificate expired at {expires}; clients will refuse it. Replace it.",
                file=self.files.certificate,
                expires=identity.expires.isoformat(),
            )
        return context, identity

    @property
    def identity(self) -> Identity:
        """The certificate, key and authorities of new connections."""
        return self._identity

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Create a connection with the current certificates."""
        return SSL.Connection(self._context, None)

    def _choose(self, connection: SSL.Connection, offered: Sequence[bytes]) -> bytes | None:
        """Choose a protocol by ALPN, in the server's order of preference; none if the factory has no ALPN names."""
        protocol = connection.get_app_data()
        spoken = protocols_of(getattr(protocol, "factory", None))
        if not spoken and self._http2:
            spoken = (b"h2", b"http/1.1")
        if self._http2 is False:
            spoken = tuple(name for name in spoken if name != b"h2")
        if not spoken:
            return b""
        return next((name for name in spoken if name in offered), None)

    def check(self) -> None:
        """Reload the files if they have changed since the last check."""
        if signature_of(self.files) != self._seen:
            try:
                self.reload()
            except Exception:
                # An error here would stop the periodic checks.
                _log.failure("Checking the certificates for changes failed. They stay as they were.")

    def reload(self) -> bool:
        """
        Reload the files. If they are invalid, log the error and keep the certificates.

        :returns: whether they are valid.
        """
        self._seen = signature_of(self.files)
        try:
            self._context, self._identity = self._build(read_files(self.files))
        except (TLSFileError, TLSContextError) as error:
            _log.error("Reloading the certificates failed; they stay as they were. {error}", error=str(error))
            return False
        else:
            _log.info(
                "Loaded the certificate {path}; it expires at {expires}.",
                path=self.files.certificate.path,
                expires=self._identity.expires.isoformat(),
            )
            return True


class TLSFactory(TLSMemoryBIOFactory):
    """
    A TLS factory that checks the files of its certificates while it is listening.

    :param clock: schedules the checks.
    """

    protocol = DirectTLS

    def __init__(self, certificates: Certificates, factory: IProtocolFactory, clock: IReactorTime) -> None:
        clock = clock_of(clock)
        super().__init__(certificates, False, factory, clock)
        self._checking = LoopingCall(certificates.check)
        self._checking.clock = clock

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = self.wrappedFactory.buildProtocol(addr)
        # One that is closed at once is closed by the port, before there is a TLS connection.
        return None if isinstance(protocol, ClosedConnection) else self.protocol(self, protocol)

    def doStart(self) -> None:
        super().doStart()
        if not self._checking.running:
            self._checking.start(CHECK_INTERVAL, now=False)

    def doStop(self) -> None:
        super().doStop()
        if not self.numPorts and self._checking.running:
            self._checking.stop()
