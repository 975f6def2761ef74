"""Tests of the rules for authentication: a server is open only if that was chosen."""

from __future__ import annotations

from typing import Final

import hypothesis
from hypothesis import strategies as st

from durable_streams.server.config.auth_rules import has_access_control
from durable_streams.server.config.sections import JwtSection
from durable_streams.server.config.settings import Settings
from durable_streams.server.config.validation import ConfigError
from durable_streams.server.identity.jwt.settings import JwtSettings

from .test_layers import LoadTests, get, variable

ALL: Final = "allow authenticated all **"

#: What a server with tokens needs.
TOKENS: Final = {"auth.methods": "token", "auth.token_file": "/tokens", "auth.rules": ALL}

ORIGINS: Final = {"http.cors_origins": "https://a.example"}

TLS_FILES: Final = {f"transport.tls.{name}_path": f"/{name}" for name in ("cert", "key", "client_ca")}


class AuthTests(LoadTests):
    def broken(self, given: dict[str, str], profile: str | None = None, *listen: str) -> ConfigError:
        error: ConfigError = self.assertRaises(ConfigError, self.by_names, given, profile, *listen)
        self.assertEqual("validate_config", error.phase)
        return error

    def by_names(self, given: dict[str, str], profile: str | None = None, *listen: str) -> Settings:
        environment = {variable(name): value for name, value in given.items()}
        return Settings.of(self.loaded(profile, None, environment, *listen).settings)

    def warnings(self, given: dict[str, str], *listen: str, profile: str | None = None) -> list[str]:
        environment = {variable(name): value for name, value in (ORIGINS | given).items()}
        return list(self.loaded(profile, None, environment, *listen).warnings)


class ProductionTests(AuthTests):
    def test_prod_and_prod_tls_do_not_start_without_a_method(self) -> None:
        self.file("transport.mode = 'http'", "prod-of-ours.toml")
        tls = {name: path for name, path in TLS_FILES.items() if "client" not in name}
        for profile, given in (("prod", {}), ("prod-tls", tls), ("prod-of-ours", {})):
            error = self.broken(ORIGINS | given, profile)
            self.assertEqual("NoAuthenticationMethod", error.rule)
            self.assertEqual(
                "auth.methods must be a list such as ['token'] with auth.token_file and auth.rules (docs/deploy.rst "
                "shows each step), or auth.allow_anonymous set to true if everybody who can reach the server may use "
                f"all streams, while auth.allow_anonymous is false by profile {profile}; the default sets it to [].",
                str(error),
            )
            for more in (TOKENS, {"auth.allow_anonymous": "true"}):
                self.assertEqual(
                    "auth.methods" not in more, self.by_names(ORIGINS | given | more, profile).auth.allow_anonymous
                )

    def test_prod_mtls_starts_with_its_certificates_alone(self) -> None:
        auth = self.by_names(ORIGINS | TLS_FILES, "prod-mtls").auth
        self.assertEqual((("certificate",), (ALL,), False), (auth.methods, auth.rules, auth.allow_anonymous))

    def test_a_file_of_rules_replaces_the_rules_of_prod_mtls(self) -> None:
        auth = self.by_names(ORIGINS | TLS_FILES | {"auth.rules_file": "/rules"}, "prod-mtls").auth
        self.assertEqual(((), "/rules"), (auth.rules, auth.rules_file))

    def test_default_and_dev_are_open(self) -> None:
        for profile in ("default", "dev"):
            self.assertTrue(self.by_names({}, profile).auth.allow_anonymous)

    def test_any_profile_without_method_and_anonymous_requests_is_refused(self) -> None:
        self.assertEqual("NoAuthenticationMethod", self.broken({"auth.allow_anonymous": "false"}).rule)


class OpenTests(AuthTests):
    @hypothesis.settings(max_examples=300, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(
        st.sampled_from(["prod", "prod-tls", "prod-mtls", "prod-of-ours"]),
        st.fixed_dictionaries(
            {},
            optional={
                "auth.methods": st.sampled_from(["", "token", "certificate", "jwt,token", "header", "signed-url"]),
                "auth.allow_anonymous": st.sampled_from(["true", "false"]),
                "auth.rules": st.sampled_from(["", " \n", ALL, "deny anyone all **", "allow anyone all **"]),
                "auth.rules_file": st.just("/rules"),
                "auth.token_file": st.just("/tokens"),
                "auth.signing_keys_file": st.just("/keys"),
                "auth.jwt.keys_file": st.just("/jwks"),
            },
        ),
        st.booleans(),
    )
    def test_a_server_for_production_is_open_only_if_that_was_said(
        self, profile: str, chosen: dict[str, str], is_plain: bool
    ) -> None:
        self.file("", "prod-of-ours.toml")
        plain = {"transport.mode": "http", "transport.http.versions": "http1"}
        files = {"prod-tls": 2, "prod-mtls": 3}.get(profile, 0)
        transport = plain if is_plain or not files else dict(list(TLS_FILES.items())[:files])
        try:
            loaded = self.by_names(ORIGINS | transport | chosen, profile)
        except ConfigError as error:
            self.assertIn("auth", str(error))
            return
        auth = loaded.auth
        if not has_access_control(loaded):
            self.assertEqual("true", chosen.get("auth.allow_anonymous"))
        if auth.methods:
            self.assertTrue(auth.rules_file is not None or any(map(str.strip, auth.rules)))
        if auth.allow_anonymous:
            self.assertEqual("true", chosen.get("auth.allow_anonymous"))
        self.assertEqual("auth.token_file" in chosen, "token" in auth.methods)
        self.assertEqual("auth.signing_keys_file" in chosen, "signed-url" in auth.methods)
        self.assertEqual("auth.jwt.keys_file" in chosen, "jwt" in auth.methods)


class MethodTests(AuthTests):
    def test_methods_without_a_rule_are_refused(self) -> None:
        for rules in ({}, {"auth.rules": " \n "}):
            error = self.broken({"auth.methods": "token", "auth.token_file": "/tokens"} | rules)
            self.assertEqual("MethodsRequireRules", error.rule)
            self.assertIn("auth.rules must be a list of rules such as ['allow authenticated all **']", str(error))
        self.by_names({"auth.methods": "token", "auth.token_file": "/tokens", "auth.rules_file": "/rules"})

    def test_rules_without_methods_are_about_anonymous_requests(self) -> None:
        self.assertEqual(("allow anyone read **",), self.by_names({"auth.rules": "allow anyone read **"}).auth.rules)

    def test_rules_in_two_places_are_refused(self) -> None:
        error = self.broken(TOKENS | {"auth.rules_file": "/rules"})
        self.assertEqual("RulesConflictWithRulesFile", error.rule)
        self.assertIn("auth.rules_file must be left out while auth.rules is ['allow authenticated all **']", str(error))

    def test_a_method_needs_its_file(self) -> None:
        for method, name in (
            ("token", "auth.token_file"),
            ("signed-url", "auth.signing_keys_file"),
            ("jwt", "auth.jwt.keys_file"),
        ):
            error = self.broken({"auth.methods": method, "auth.rules": ALL})
            self.assertEqual("MethodRequiresSetting", error.rule)
            self.assertIn(f"{name} must be the path of a file of ", str(error))
            self.by_names({"auth.methods": method, "auth.rules": ALL, name: "/file"})
        for name in ("jwks_url", "discovery_url"):
            self.by_names({"auth.methods": "jwt", "auth.rules": ALL, f"auth.jwt.{name}": "https://a.example"})

    def test_a_file_without_its_method_is_refused_since_the_server_would_be_open(self) -> None:
        for method, name in (
            ("token", "auth.token_file"),
            ("signed-url", "auth.signing_keys_file"),
            ("jwt", "auth.jwt.keys_file"),
            ("jwt", "auth.jwt.jwks_url"),
        ):
            error = self.broken({name: "/file"})
            self.assertEqual("SettingRequiresMethod", error.rule)
            self.assertIn(f"{name} must be left out, or auth.methods a list with '{method}'", str(error))

    def test_empty_paths_are_refused(self) -> None:
        for name in ("rules_file", "token_file", "signing_keys_file", "jwt.keys_file", "jwt.ca_file"):
            error = self.broken({f"auth.{name}": " "})
            self.assertEqual("EmptyPath", error.rule)
            self.assertTrue(str(error).startswith(f"auth.{name} must be the path of "), str(error))

    def test_the_header_of_a_proxy_must_be_read_for_its_method(self) -> None:
        error = self.broken({"auth.methods": "header", "auth.rules": ALL})
        self.assertEqual("HeaderMethodRequiresHeaderIdentity", error.rule)

    def test_certificates_need_a_listener_that_asks_for_them(self) -> None:
        certificates = {"auth.methods": "certificate", "auth.rules": ALL}
        mtls = TLS_FILES | {"transport.mode": "mtls"}
        error = self.broken(certificates)
        self.assertEqual("CertificateMethodRequiresMtls", error.rule)
        self.assertIn("transport.mode must be mtls while auth.methods is ['certificate']", str(error))
        self.by_names(certificates | mtls)
        error = self.broken(certificates | mtls, None, "tcp:4437")
        self.assertIn("server.listen must be a list with an mtls: endpoint", str(error))
        self.by_names(certificates, None, "tcp:4437", "haproxy:mtls:4438")
        self.by_names(certificates | TOKENS | {"auth.methods": "certificate,token"}, None, "tcp:4437")

    def test_times_of_jwt_are_checked(self) -> None:
        jwt = {"auth.methods": "jwt", "auth.rules": ALL, "auth.jwt.keys_file": "/keys"}
        for name, value, wanted in (
            ("leeway_secs", "-1", "0 to 600"),
            ("leeway_secs", "601", "0 to 600"),
            ("refresh_secs", "9", "10 to 86400"),
            ("max_stale_secs", "300", "at most 2592000, and more than the refresh time"),
            ("max_stale_secs", "2592001", "at most 2592000, and more than the refresh time"),
        ):
            self.assertIn(f"auth.jwt.{name} must be {wanted}", str(self.broken(jwt | {f"auth.jwt.{name}": value})))

    def test_the_section_of_jwt_has_the_settings_and_defaults_of_its_checker(self) -> None:
        section, checker = JwtSection(), JwtSettings()
        self.assertEqual(JwtSettings.__struct_fields__, JwtSection.__struct_fields__)
        for name in JwtSettings.__struct_fields__:
            self.assertEqual(getattr(checker, name), getattr(section, name), name)


class CredentialTests(AuthTests):
    def test_credentials_of_pages_need_listed_origins(self) -> None:
        error = self.broken({"http.cors_credentials": "true"})
        self.assertEqual("CorsCredentialsRequireOrigins", error.rule)
        self.assertIn("http.cors_origins must be a list of the origins whose pages may send credentials", str(error))
        self.by_names(ORIGINS | {"http.cors_credentials": "true"})


class RulesTests(AuthTests):
    def test_a_text_has_a_rule_on_each_line(self) -> None:
        lines = "allow group:a create,append chats/**\n\n  allow anyone read **\n"
        expected = ("allow group:a create,append chats/**", "", "allow anyone read **")
        self.assertEqual(expected, self.by_names({"auth.rules": lines}).auth.rules)
        file = self.file(f'auth.rules = """\n{lines}"""')
        self.assertEqual(expected, get(self.load(None, file, {}), "auth.rules"))

    def test_a_list_of_rules_has_commas_in_its_items(self) -> None:
        file = self.file("auth.rules = ['allow group:a create,append chats/**']")
        self.assertEqual(("allow group:a create,append chats/**",), get(self.load(None, file, {}), "auth.rules"))


class WarningTests(AuthTests):
    def test_an_open_server_that_other_machines_reach_is_warned_about(self) -> None:
        [warning] = self.warnings({})
        self.assertTrue(warning.startswith("server.bind_address is '0.0.0.0:4437', and auth.methods is not set"))
        [warning] = self.warnings({}, "unix:/run/x", "tcp:80")
        self.assertTrue(warning.startswith("server.listen is 'tcp:80', and auth.methods is not set"))

    def test_an_open_server_that_is_local_confirmed_or_has_rules_is_not_warned_about(self) -> None:
        self.assertEqual([], self.warnings({}, profile="dev"))
        self.assertEqual([], self.warnings({}, "unix:/run/x", "tcp:80:interface=127.0.0.1"))
        for given in (
            {"server.bind_address": "[::1]:80"},
            {"auth.allow_anonymous": "true"},
            {"auth.rules": "allow anyone read **"},
        ):
            self.assertEqual([], self.warnings(given))

    def test_credentials_that_cross_the_network_unencrypted_are_warned_about(self) -> None:
        for given, listen in ((TOKENS, ()), (TOKENS, ("unix:/x", "tcp:80"))):
            [warning] = self.warnings(given, *listen)
            self.assertTrue(warning.startswith("auth.methods has token, and server."), warning)
            self.assertIn("without TLS", warning)
        tls = {name: path for name, path in TLS_FILES.items() if "client" not in name} | {"transport.mode": "tls"}
        self.assertEqual([], self.warnings(TOKENS | tls))
        self.assertEqual([], self.warnings(TOKENS | {"server.bind_address": "127.0.0.1:80"}))
        self.assertEqual([], self.warnings(TOKENS, "tls:443"))

    def test_settings_that_nothing_reads_are_warned_about(self) -> None:
        tokens = TOKENS | {"server.bind_address": "127.0.0.1:80"}
        opened = {"server.bind_address": "127.0.0.1:80"}
        proxy = {
            "proxy.enabled": "true",
            "proxy.forwarded_headers": "forwarded",
            "proxy.trusted_proxies": "10.0.0.1",
            "proxy.identity.mode": "header",
            "proxy.identity.header_name": "X-User",
        }
        mtls = TLS_FILES | {"transport.mode": "mtls", "auth.methods": "certificate", "auth.rules": ALL}
        for given, beginning in (
            (tokens | {"auth.certificate_name": "cn"}, "auth.certificate_name has no effect"),
            (opened | {"auth.hide_forbidden": "true"}, "auth.hide_forbidden has no effect"),
            (tokens | {"auth.jwt.issuer": "https://a.example"}, "auth.jwt has no effect"),
            (mtls | proxy, "proxy.identity.mode is header, and auth.methods does not have header"),
        ):
            [warning] = self.warnings(given)
            self.assertTrue(warning.startswith(beginning), warning)
        self.assertEqual([], self.warnings(mtls | proxy | {"auth.methods": "header,certificate"}))
