"""Tests of the settings of JWT authentication."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.jwt.settings import JwtSettings

ISSUER = "https://issuer.example"
URL = f"{ISSUER}/jwks.json"


class JwtSettingsTests(SynchronousTestCase):
    def problems(self, **values: object) -> list[str]:
        return list(JwtSettings(**values).problems())  # type: ignore[arg-type]

    def check_problem(self, start: str, **values: object) -> None:
        """Check that there is one problem, which begins with the text."""
        problems = self.problems(**values)
        self.assertEqual(1, len(problems), problems)
        self.assertTrue(problems[0].startswith(start), problems)
        self.assertTrue(problems[0].endswith("."), problems)

    def test_each_source_of_keys_is_accepted(self) -> None:
        self.assertEqual([], self.problems(keys_file="keys.json"))
        self.assertEqual([], self.problems(jwks_url=URL, issuer=ISSUER))
        self.assertEqual([], self.problems(discovery_url=URL, issuer=ISSUER, ca_file="ca.pem"))

    def test_no_source_of_keys_or_two_are_refused(self) -> None:
        self.check_problem("auth.jwt.keys_file, auth.jwt.jwks_url and auth.jwt.discovery_url: exactly", issuer="i")
        self.check_problem(
            "auth.jwt.keys_file, auth.jwt.jwks_url and auth.jwt.discovery_url: exactly one must be set, not "
            "auth.jwt.keys_file and auth.jwt.jwks_url.",
            keys_file="f",
            jwks_url=URL,
        )

    def test_plain_http_is_accepted_on_loopback_only(self) -> None:
        for host in ("127.0.0.1:8080", "127.1.2.3", "[::1]:80", "localhost"):
            self.assertEqual([], self.problems(jwks_url=f"http://{host}/k", issuer=ISSUER), host)
        for host in ("issuer.example", "10.0.0.1", "localhost.example", "127.0.0.1.example"):
            self.check_problem("auth.jwt.jwks_url: must be https", jwks_url=f"http://{host}/k", issuer=ISSUER)

    def test_urls_that_are_none_are_refused(self) -> None:
        for url in ("", "jwks", "file:///etc/passwd", "https://", "https:///k", "https://h:0/", "https://h:99999/",
                    "https://h/ k", "https://h/\nk", "https://hö/k", "https://[::1/k", "HTTPS//h"):  # fmt: skip
            self.check_problem("auth.jwt.discovery_url: is not a", discovery_url=url, issuer=ISSUER)

    def test_a_password_in_a_url_is_refused_and_not_shown(self) -> None:
        self.check_problem("auth.jwt.jwks_url: must not have a user", jwks_url="https://u:geheim@h/k", issuer=ISSUER)
        self.assertNotIn("geheim", "".join(self.problems(jwks_url="https://u:geheim@h/k", issuer=ISSUER)))

    def test_keys_of_a_url_need_an_issuer(self) -> None:
        self.check_problem("auth.jwt.issuer: must be set", jwks_url=URL)
        self.check_problem("auth.jwt.issuer: must be set", jwks_url=URL, issuer="")

    def test_algorithms_are_a_list_of_known_ones(self) -> None:
        for algorithm in ("none", "None", "NONE", "", "rs256", "ES256K", "RSA-OAEP", "dir"):
            self.check_problem(f"auth.jwt.algorithms: {algorithm!r}", keys_file="f", algorithms=(algorithm,))
        self.check_problem("auth.jwt.algorithms: must have", keys_file="f", algorithms=())

    def test_shared_secrets_come_from_a_file_only(self) -> None:
        self.assertEqual([], self.problems(keys_file="f", algorithms=("HS256", "RS256")))
        self.check_problem(
            "auth.jwt.algorithms: HS256 needs a secret", jwks_url=URL, issuer=ISSUER, algorithms=("HS256", "RS256")
        )

    def test_values_out_of_range_are_refused(self) -> None:
        for setting, values in {
            "leeway_secs": (-1, 601),
            "refresh_secs": (9, 0, -1),
            "max_stale_secs": (300, 0, 2_592_001),
        }.items():
            for value in values:
                self.check_problem(f"auth.jwt.{setting}: must be", keys_file="f", **{setting: value})
        self.check_problem("auth.jwt.refresh_secs", keys_file="f", refresh_secs=86_401, max_stale_secs=100_000)

    def test_names_of_claims_are_not_empty(self) -> None:
        self.check_problem("auth.jwt.subject_claim", keys_file="f", subject_claim="")
        self.check_problem("auth.jwt.groups_claim", keys_file="f", groups_claim="")
        self.check_problem("auth.jwt.required_claims: '=x' has no name", keys_file="f", required_claims=("=x",))
        self.check_problem("auth.jwt.audience", keys_file="f", audience=("a", ""))
        self.check_problem("auth.jwt.issuer: must not be empty", keys_file="f", issuer="")

    def test_an_authority_needs_a_url(self) -> None:
        self.check_problem("auth.jwt.ca_file: has no effect", keys_file="f", ca_file="ca.pem")
