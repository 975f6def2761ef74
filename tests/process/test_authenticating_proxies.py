"""Behind real proxies that authenticate clients, set up as docs/proxies.rst says."""

from __future__ import annotations

import subprocess
import textwrap
import tomllib
from base64 import b64encode
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Final

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from tests.support.authority import CLIENT_AUTH, authority
from tests.support.daemon import CHECKOUT, PATIENCE, free_port
from tests.support.programs import program
from tests.support.proxies import CLIENT, HAProxy, Nginx, Proxy

from .test_proxies import Encrypted

PAGE: Final = CHECKOUT / "docs" / "proxies.rst"
TEXT: Final = {"Content-Type": "text/plain"}

#: The SHA-1 form of the password ``secret`` that nginx reads.
PASSWORD: Final = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="


def block(words: str) -> str:
    """Return the first block of the page after these words."""
    text = PAGE.read_text()
    assert words in text, words
    lines = text.partition(words)[2].partition("::\n\n")[2].splitlines()
    end = next(number for number, line in enumerate(lines) if line and not line.startswith("       "))
    return textwrap.dedent("\n".join(lines[:end]))


def variables(section: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return settings as variables of the environment."""
    found: dict[str, str] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            found |= variables(value, f"{prefix}{name}__")
        elif isinstance(value, list):
            found[prefix + name] = ("\n" if name == "rules" else ",").join(value)
        else:
            found[prefix + name] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def basic(user: str, password: str = "secret") -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


class AuthenticatingNginx(Nginx):
    """nginx with a file of passwords."""

    def configuration(self, upstream: str) -> str:
        users = self.folder / "users"
        users.write_text(f"alice:{PASSWORD}\nbob:{PASSWORD}\n")
        location = block("With nginx, instead of the")
        for there, instead in {
            "/etc/nginx/streams.htpasswd": str(users),
            "/etc/nginx/proxy.pem": str(self.folder / "proxy.pem"),
            "/etc/nginx/proxy.key": str(self.folder / "proxy.key"),
            "/etc/nginx/ca.pem": str(self.folder / "ca.pem"),
            "streams.example.com": "streams.example",
        }.items():
            assert location.count(there) == 1, there
            location = location.replace(there, instead)
        write_certificates(self.folder)
        sample = super().configuration(upstream)
        first = "location /v1/stream/ {\n        proxy_pass http://durable_streams;\n"
        assert first in sample
        return sample.replace(first, location + "\n")


class AuthenticatingHAProxy(HAProxy):
    """HAProxy with a list of users."""

    def configuration(self, upstream: str) -> str:
        write_certificates(self.folder)
        both = self.folder / "both.pem"
        both.write_bytes((self.folder / "proxy.pem").read_bytes() + (self.folder / "proxy.key").read_bytes())
        users = block("a list of users, with passwords")
        assert users.count("alice password $5$EXAMPLE") == 1
        users = users.replace(
            "alice password $5$EXAMPLE", "alice insecure-password secret\n  user bob insecure-password secret"
        )
        server = block("and this line in ``backend durable_streams``").strip()
        for there, instead in {
            "127.0.0.1:4437": upstream,
            "/etc/haproxy/proxy.pem": str(both),
            "/etc/haproxy/ca.pem": str(self.folder / "ca.pem"),
            "streams.example.com": "streams.example",
        }.items():
            assert server.count(there) == 1, there
            server = server.replace(there, instead)
        sample = super().configuration(upstream)
        lines = [server if line.strip().startswith("server one ") else line for line in sample.splitlines()]
        place = next(number for number, line in enumerate(lines) if "default_backend" in line)
        lines[place:place] = block("With HAProxy, these lines in ``frontend streams``").splitlines()
        return "\n".join([*lines, "", *users.splitlines(), ""])


def write_certificates(folder: Path) -> None:
    """Write the proxy's certificate, its key, and the certificate of the authority."""
    authority().client("proxy").write(folder, "proxy")
    (folder / "ca.pem").write_bytes(authority().certificate_pem)


class Cases:
    """The test cases, which a subclass runs with one proxy."""

    class AuthenticatingProxyTests(SynchronousTestCase):
        proxy_type: ClassVar[type[Proxy]]

        def setUp(self) -> None:
            self.folder = Path(self.mktemp()).absolute()
            self.folder.mkdir()
            issued = authority().issue("streams.example", places=(x509.DNSName("streams.example"),))
            certificate, key = issued.write(self.folder, "server")
            self.ca = self.folder / "ca.pem"
            self.ca.write_bytes(authority().certificate_pem)
            settings = block("Set up the server")
            for path, instead in {"cert": certificate, "key": key, "ca": str(self.ca)}.items():
                there = f"/etc/durable-streams/{path}.pem"
                assert settings.count(there) == 1
                settings = settings.replace(there, instead)
            self.port = free_port()
            stack = ExitStack()
            self.addCleanup(stack.close)
            self.daemon = stack.enter_context(Encrypted(self.port, **variables(tomllib.loads(settings))))
            self.proxy = stack.enter_context(self.proxy_type(f"127.0.0.1:{self.port}"))

        def status(self, method: str, name: str, user: str | None = None, **headers: str) -> int:
            fields = {**TEXT, **(basic(user) if user else {})}
            fields |= {key.replace("_", "-"): value for key, value in headers.items()}
            return self.proxy.request(method, "/v1/stream/" + name, b"hello" if method == "PUT" else None, fields)[0]

        def test_the_proxys_users_have_their_own_streams(self) -> None:
            self.assertEqual(self.status("PUT", "users/alice/a", "alice"), 201)
            self.assertEqual(self.status("GET", "users/alice/a", "alice"), 200)
            self.assertEqual(self.status("GET", "users/alice/a", "bob"), 403)
            self.assertEqual(self.status("PUT", "users/alice/b", "bob"), 403)
            self.assertEqual(self.status("GET", "users/alice/a"), 401)
            wrong = basic("alice", "wrong")["Authorization"]
            self.assertEqual(self.status("GET", "users/alice/a", Authorization=wrong), 401)

        def test_a_client_cannot_name_itself(self) -> None:
            self.assertEqual(self.status("PUT", "users/alice/a", "alice"), 201)
            for name in ("X-User", "x-user", "X_User", "X-USER"):
                self.assertEqual(self.status("GET", "users/alice/a", "bob", **{name: "alice"}), 403, name)
            # Preflights pass the proxy without a user, and reach no stream.
            preflight = {"Origin": "https://page.example", "Access_Control_Request_Method": "PUT", "X_User": "alice"}
            self.assertEqual(self.status("OPTIONS", "users/alice/a", **preflight), 204)

        def test_a_page_of_another_site_cannot_write_with_a_session(self) -> None:
            self.assertEqual(self.status("PUT", "users/alice/a", "alice", Origin="https://evil.example"), 403)
            self.assertEqual(self.status("PUT", "users/alice/a", "alice", Origin="https://streams.example"), 201)

        def directly(self, *options: str) -> str:
            """Send a request to the server itself, with a certificate of its authority; return the status."""
            own, key = authority().issue("mallory", (CLIENT_AUTH,)).write(self.folder, "mallory")
            command = [program("curl"), "-sS", "--max-time", str(PATIENCE), "--cacert", str(self.ca)]
            command += ["--cert", own, "--key", key, "-o", "/dev/null", "-w", "%{http_code}"]
            command += ["--resolve", f"streams.example:{self.port}:127.0.0.1", *options]
            command += [f"https://streams.example:{self.port}/v1/stream/users/alice/a"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout

        def test_a_client_that_reaches_the_server_itself_cannot_name_anybody(self) -> None:
            self.assertEqual(self.status("PUT", "users/alice/a", "alice"), 201)
            for version in ("--http1.1", "--http2"):
                # It has a certificate, and comes from another address than the proxy.
                self.assertEqual(self.directly(version, "--interface", CLIENT, "-H", "X-User: alice"), "401")

        def test_the_proxy_has_to_name_one_identity(self) -> None:
            self.assertEqual(self.status("PUT", "users/alice/a", "alice"), 201)
            for version in ("--http1.1", "--http2"):
                for names, status in (
                    (["alice"], "200"),
                    (["bob"], "403"),
                    (["alice", "bob"], "400"),
                    (["alice", "alice"], "400"),
                    (["alice, bob"], "403"),
                    (["aé"], "403"),
                    # A byte that is not UTF-8.
                    (["a\udce9"], "401"),
                    ([], "401"),
                ):
                    options = [option for name in names for option in ("-H", f"X-User: {name}")]
                    self.assertEqual(self.directly(version, *options), status, names)
                self.assertEqual(self.directly(version, "-H", "X-User;"), "401")


class NginxTests(Cases.AuthenticatingProxyTests):
    proxy_type = AuthenticatingNginx


class HAProxyTests(Cases.AuthenticatingProxyTests):
    proxy_type = AuthenticatingHAProxy
