"""docs/jwt.rst: its commands work with an issuer on this machine."""

from __future__ import annotations

import re
import time
from typing import Any, Final

import jwt

from durable_streams.server.identity.credentials import Presented
from tests.support.daemon import CHECKOUT, free_port
from tests.support.oidc_issuer import IssuerProcess
from tests.support.process_case import ProcessTestCase, wait_for
from tests.support.programs import program
from tests.support.shell import Shell, blocks_of

PAGE: Final = CHECKOUT / "docs" / "jwt.rst"

CLIENTS: Final = {
    "backend": {
        "secret": "backend-secret",
        "claims": {"aud": "streams", "realm_access": {"roles": ["writers", "offline_access"]}},
    },
    "viewer": {"secret": "viewer-secret", "claims": {"aud": "streams"}},
}


class PageTests(ProcessTestCase):
    def setUp(self) -> None:
        super().setUp()
        program("curl")
        program("openssl")
        self.issuer = IssuerProcess(self.folder, CLIENTS)
        self.issuer.start()
        self.addCleanup(self.issuer.stop)
        port = free_port()
        self.shell = Shell(
            self.folder / "page",
            {"https://id.example.com/realms/acme": self.issuer.url, "localhost:4437": f"localhost:{port}"},
            {
                "DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{port}",
                "DS_AUTH__JWT__CA_FILE": str(self.issuer.ca_file),
                "CURL_CA_BUNDLE": str(self.issuer.ca_file),
            },
        )

    def test_every_command_of_the_page_works(self) -> None:
        settings, check, start, tokens, write, read, refused, explain, grants, keys, program_of_own = blocks_of(PAGE)
        self.shell.run(settings)
        self.assertIn("Would listen on", self.shell.run(check))
        self.addCleanup(self.shell.stop_daemon)
        self.shell.run(start)
        log = self.folder / "page" / "twistd.log"
        wait_for(lambda: log.exists() and "Fetched the keys of the token issuer" in log.read_text(), "the keys")
        self.shell.run(tokens)
        self.shell.run(write)
        self.assertEqual("all is well", self.shell.run(read))
        self.assertEqual("401\n403\n", self.shell.run(refused))
        self.assertIn("allow authenticated read reports/**", self.shell.run(explain))
        self.assertIn('"operations"', grants)
        self.check_keys_of_a_file(keys)
        self.check_program(program_of_own)
        self.assertNotIn("Traceback", log.read_text())
        for token in ("backend.token", "viewer.token"):
            self.assertNotIn((self.folder / "page" / token).read_text().strip(), log.read_text())

    def check_keys_of_a_file(self, block: str) -> None:
        """Check that the server accepts the file which the page makes."""
        self.shell.run(block)
        options = " ".join(
            f"DS_AUTH__JWT__{name}={value}"
            for name, value in {"KEYS_FILE": "$PWD/issuer-keys.pem", "ALGORITHMS": "EdDSA"}.items()
        )
        command = (
            f"unset DS_AUTH__JWT__CA_FILE; {options} DS_AUTH__METHODS=jwt DS_AUTH__RULES='allow authenticated all **'"
        )
        self.assertIn("Would listen on", self.shell.run(f"{command} twistd -n durable-streams --check"))

    def check_program(self, block: str) -> None:
        """Check that the access control of the page's program accepts a token of the page's key."""
        names: dict[str, Any] = {}
        folder = self.folder / "page"
        exec(block.replace("issuer-keys.pem", str(folder / "issuer-keys.pem")), names)
        self.addCleanup(names["checker"].stop)
        self.addCleanup(names["access"].authentication.close)
        claims = {"iss": "my-issuer", "aud": "streams", "sub": "alice", "exp": time.time() + 60}
        token = jwt.encode(claims, (folder / "signing-key.pem").read_text(), "EdDSA")
        found = names["access"].authentication.principal_of(Presented(b"Bearer " + token.encode()))
        self.assertEqual(("alice", "jwt"), (found.subject, found.kind))
        self.assertTrue(names["access"].policy.decide(found, "read", "any").allowed)

    def test_the_page_names_settings_that_exist(self) -> None:
        reference = (CHECKOUT / "docs" / "configuration.rst").read_text()
        named = set(re.findall(r"``(auth\.jwt\.[a-z_]+)``", PAGE.read_text()))
        self.assertGreater(len(named), 4)
        for name in named:
            self.assertIn(f"``{name}``", reference)
