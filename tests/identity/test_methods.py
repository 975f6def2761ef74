"""Methods: which credential of a request decides, and how it is read."""

from __future__ import annotations

from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.credentials import UsernamePassword
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.identity.credentials import (
    BearerToken,
    CertificateCredentials,
    ClientCertificate,
    Presented,
    ProxyIdentity,
    SignedUrlCredentials,
)
from durable_streams.server.identity.methods import METHODS, Methods

CERTIFICATE = ClientCertificate("CN=a")

#: Method -> a request that has its credential only.
REQUESTS = {
    "token": Presented(authorization=b"Bearer a"),
    "jwt": Presented(authorization=b"Bearer a.b.c"),
    "bearer": Presented(authorization=b"Bearer a"),
    "basic": Presented(authorization=b"Basic YTpi"),
    "certificate": Presented(certificate=CERTIFICATE),
    "header": Presented(proxy_identity="a"),
    "signed-url": Presented(query=b"ds_sig=x"),
}


class MethodsTests(SynchronousTestCase):
    def read(self, methods: Methods, presented: Presented) -> object:
        credential = methods.find(presented)
        assert credential is not None
        return methods.read(credential, presented)

    @given(st.lists(st.sampled_from(sorted(METHODS)), unique=True), st.sampled_from(sorted(REQUESTS)))
    def test_a_credential_is_found_exactly_if_its_method_is_configured(self, names: list[str], method: str) -> None:
        methods, presented = Methods(names), REQUESTS[method]
        in_header = presented.authorization is not None
        accepted = method in names or (in_header and {"token", "jwt", "bearer", "basic"} & set(names))
        try:
            found = methods.find(presented)
        except NotAuthenticated as error:
            # It has no credential of a configured method.
            self.assertTrue(names and not accepted and (in_header or method == "signed-url"))
            for name in names:
                self.assertIn(METHODS[name], str(error))
        else:
            self.assertEqual(bool(accepted), found is not None)

    @given(st.permutations(["token", "certificate", "header", "signed-url"]))
    def test_the_first_configured_method_decides(self, names: list[str]) -> None:
        everything = Presented(b"Bearer a", b"ds_sig=x", certificate=CERTIFICATE, proxy_identity="a")
        kinds = {
            "token": BearerToken,
            "certificate": CertificateCredentials,
            "header": ProxyIdentity,
            "signed-url": SignedUrlCredentials,
        }
        methods = Methods(names)
        self.assertIsInstance(self.read(methods, everything), kinds[names[0]])
        self.assertEqual(names[0] == "token", methods.authorization_first)

    @given(st.binary(max_size=60) | st.from_regex(rb"\A(?i:bearer|basic) .{0,40}\Z", fullmatch=True))
    def test_any_authorization_is_a_credential_or_refused(self, value: bytes) -> None:
        methods = Methods(["token", "basic"])
        try:
            found = self.read(methods, Presented(authorization=value, address="192.0.2.1"))
        except NotAuthenticated as error:
            # The sentences have nothing of the value.
            self.assertRegex(str(error), "^Authorization(: Basic needs USER:PASSWORD| is not of a form that)")
        else:
            self.assertIsInstance(found, (BearerToken, UsernamePassword))

    def test_a_malformed_bearer_token_is_refused_with_what_a_token_has(self) -> None:
        for value in (b"Bearer ", b"bearer", b"Bearer alice:secret", b"Bearer one two"):
            with self.assertRaisesRegex(NotAuthenticated, "after Bearer stands one token of letters, digits"):
                self.read(Methods(["token"]), Presented(authorization=value))
        with self.assertRaisesRegex(NotAuthenticated, "accepts\\. Send a user name"):
            self.read(Methods(["basic"]), Presented(authorization=b"Bearer alice:secret"))

    @given(st.binary(max_size=20).filter(lambda name: b":" not in name), st.binary(max_size=20))
    def test_a_password_may_have_any_bytes(self, name: bytes, password: bytes) -> None:
        value = b"Basic " + b64encode(name + b":" + password)
        found = self.read(Methods(["basic"]), Presented(authorization=value))
        assert isinstance(found, UsernamePassword)
        self.assertEqual((name, password), (found.username, found.password))

    def test_the_challenge_is_that_of_the_methods(self) -> None:
        bearer, basic = 'Bearer realm="durable-streams"', 'Basic realm="durable-streams", charset="UTF-8"'
        for names, challenge in (
            ([], bearer),
            (["certificate"], bearer),
            (["token", "jwt"], bearer),
            (["basic"], basic),
            (["basic", "bearer"], f"{bearer}, {basic}"),
        ):
            self.assertEqual(challenge, Methods(names).challenge)
