"""TLS without a network: a certificate that lives as long as the tests, and a client that is an OpenSSL connection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.tcp import Server
from twisted.protocols.tls import TLSMemoryBIOFactory

from durable_streams.server.listening.tls.connections import DirectTLS

from .fronts import ChannelFront, Peer
from .wire import ENDLESS, Network, Socket


@cache
def server_options() -> CertificateOptions:
    """Make a certificate that signs itself, and what a server needs of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "streams.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return CertificateOptions(
        privateKey=crypto.load_privatekey(crypto.FILETYPE_PEM, pem),
        certificate=crypto.X509.from_cryptography(certificate),
    )


def over_tls(factory: IProtocolFactory, clock: Clock) -> IProtocolFactory:
    """Put TLS under a factory's protocols, as the daemon's endpoints do."""
    wrapped = TLSMemoryBIOFactory(server_options(), False, factory, clock)
    wrapped.protocol = DirectTLS
    return wrapped


class TLSPeer(Peer):
    """
    A client that speaks TLS.

    :cvar protocols: what it offers by ALPN.
    :ivar told: whether the server said properly that it sends no more.
    """

    protocols: tuple[bytes, ...] = ()

    def __init__(self, network: Network, skt: Socket, transport: Server, read_replies: bool) -> None:
        super().__init__(network, skt, transport, read_replies)
        self._tls = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        if self.protocols:
            self._tls.set_alpn_protos(list(self.protocols))
        self._tls.set_connect_state()
        self._shaken = False
        self.told = False
        self._shake()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
            self._shaken = True
        except SSL.WantReadError:
            self._shaken = False
        self._pass_on()

    def _pass_on(self) -> None:
        while True:
            try:
                self._socket.inbound += self._tls.bio_read(65_536)
            except SSL.WantReadError:
                return

    def handshake(self) -> None:
        """Agree on keys."""
        for _ in range(5):
            self._network.settle()
            self.take_piece(ENDLESS)
            if self._shaken:
                return
        raise AssertionError("no handshake")

    def _seal(self, data: bytes) -> bytes:
        left = memoryview(data)
        while left:
            left = left[self._tls.send(bytes(left[:16_384])) :]
        self._pass_on()
        return b""

    def _open(self, piece: bytes) -> bytes:
        if piece:
            self._tls.bio_write(piece)
        if not self._shaken:
            self._shake()
        plain = bytearray()
        try:
            while self._shaken:
                plain += self._tls.recv(65_536)
        except SSL.ZeroReturnError:
            self.told = True
        except SSL.WantReadError:
            pass
        self._pass_on()
        return bytes(plain)


class TLSFront(ChannelFront):
    """The daemon's own HTTP/1.1, over TLS."""

    scheme = "https"
    wrap = staticmethod(over_tls)
    peer_type = TLSPeer

    def connect(self, room: int = ENDLESS, read_replies: bool = True) -> Peer:
        peer = super().connect(ENDLESS, read_replies)
        assert isinstance(peer, TLSPeer)
        peer.handshake()
        peer.limit(room)
        return peer
