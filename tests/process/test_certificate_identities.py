"""Daemons whose clients are identified by their certificates, on HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import subprocess
import time
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from tests.support.authority import LOOPBACK, authority
from tests.support.programs import program
from tests.support.tls_daemon import Certificates, TLSDaemon

VERSIONS: Final = ("--http1.1", "--http2")

RULES: Final = """\
allow "subject:CN=alice,O=Example\\\\, Inc" all streams/**
allow claim:dns=worker.example read streams/**
allow subject:CN=ops admin
allow subject:CN=brief read streams/**"""


class CertificateIdentityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.certificates = Certificates()
        self.addCleanup(self.certificates.clean_up)

    def serve(self, **settings: object) -> TLSDaemon:
        chosen = {"auth__methods": "certificate", "auth__allow_anonymous": "false", "auth__rules": RULES}
        daemon = TLSDaemon(self.certificates, "mtls", **(chosen | {"admin__enabled": "true"} | settings))
        self.addCleanup(daemon.close)
        daemon.__enter__()
        return daemon

    def client(self, name: str, ends: timedelta = timedelta(days=1)) -> list[str]:
        """Issue a certificate, and return curl's options for it."""
        subject = None
        places: tuple[x509.GeneralName, ...] = LOOPBACK
        if name == "alice":
            parts = ((NameOID.ORGANIZATION_NAME, "Example, Inc"), (NameOID.COMMON_NAME, "alice"))
            subject = x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])
        elif name == "worker":
            places = (x509.DNSName("other.example"), x509.DNSName("Worker.example"))
        issued = authority().client(name, subject=subject, places=places, ends=ends)
        certificate, key = issued.write(self.certificates.folder, name)
        return ["--cert", certificate, "--key", key]

    def status(self, daemon: TLSDaemon, client: list[str], *options: str) -> int:
        done = daemon.curl(*client, "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return int(done.stdout)

    def test_rules_decide_by_the_names_in_the_certificate(self) -> None:
        daemon = self.serve()
        alice, worker, ops, other = map(self.client, ("alice", "worker", "ops", "other"))
        put = ("-X", "PUT", "-H", "Content-Type: text/plain", "-d", "hello")
        for number, version in enumerate(VERSIONS):
            path = f"/v1/stream/streams/{number}"
            for client in (worker, ops, other):
                self.assertEqual(self.status(daemon, client, version, *put, path), 403)
            self.assertEqual(self.status(daemon, alice, version, *put, path), 201)
            read = [self.status(daemon, client, version, path) for client in (alice, worker, ops, other)]
            self.assertEqual(read, [200, 200, 403, 403])

    def test_pages_for_operators_and_metrics_need_the_right_admin(self) -> None:
        daemon = self.serve()
        alice, ops = self.client("alice"), self.client("ops")
        pages = (
            "/admin/streams",
            "/metrics",
            "//admin/streams",
            "/%61dmin/streams",
            "/admin/../admin/streams",
            "/admin/",
        )
        for version in VERSIONS:
            for path in pages:
                self.assertEqual(self.status(daemon, alice, version, path), 403, (version, path))
                self.assertEqual(self.status(daemon, alice, version, "-X", "OPTIONS", "/admin/streams"), 403)
            for path in pages[:4]:
                self.assertEqual(self.status(daemon, ops, version, path), 200, (version, path))
            evil = ("-H", "Origin: https://evil.example")
            self.assertEqual(self.status(daemon, ops, version, *evil, "/admin/streams"), 403)
            self.assertEqual(self.status(daemon, alice, version, "/healthz"), 200)

    def test_the_certificate_of_a_trusted_proxy_opens_no_page(self) -> None:
        trusting = {"proxy__enabled": "true", "proxy__forwarded_headers": "x-forwarded"}
        daemon = self.serve(**trusting, proxy__trusted_proxies="127.0.0.1", auth__rules="allow authenticated all **")
        proxy = self.client("proxy")
        for version in VERSIONS:
            for path in ("/admin/streams", "/metrics"):
                self.assertEqual(self.status(daemon, proxy, version, path), 401, path)
            # Its requests for streams are its own, as its header names nobody.
            self.assertEqual(self.status(daemon, proxy, version, "/v1/stream/none"), 404)

    def test_a_tail_ends_when_its_certificate_expires(self) -> None:
        daemon = self.serve()
        alice = self.client("alice")
        options = ("-X", "PUT", "-H", "Content-Type: text/plain", "-d", "hello")
        self.assertEqual(self.status(daemon, alice, *options, "/v1/stream/streams/a"), 201)
        brief = self.client("brief", timedelta(seconds=4))
        began = time.monotonic()
        done = daemon.curl(*brief, "-N", "/v1/stream/streams/a?offset=-1&live=sse")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"data:hello", done.stdout)
        self.assertEqual(done.stdout.count(b"event: control"), 2)
        self.assertLess(time.monotonic() - began, 10)

    def test_the_chosen_name_is_the_subject(self) -> None:
        daemon = self.serve(auth__certificate_name="cn", auth__rules="allow authenticated all {subject}/**")
        put = ("-X", "PUT", "-H", "Content-Type: text/plain")
        alice = self.client("alice")
        self.assertEqual(self.status(daemon, alice, *put, "/v1/stream/alice/a"), 201)
        self.assertEqual(self.status(daemon, alice, *put, "/v1/stream/worker/a"), 403)
        strict = self.serve(auth__certificate_name="dns", auth__rules="allow authenticated all **")
        self.assertEqual(self.status(strict, alice, "/v1/stream/a"), 404)
        self.assertEqual(self.status(strict, self.client("worker"), "/v1/stream/a"), 401)
        command = [program("curl"), "-sS", "--cacert", str(self.certificates.ca), strict.url + "/v1/stream/a"]
        self.assertNotEqual(subprocess.run(command, capture_output=True, timeout=60, check=False).returncode, 0)
