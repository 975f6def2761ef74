"""Tests of the claims of tokens whose signature is right."""

from __future__ import annotations

import json

from tests.support.jwts import AUDIENCE, ISSUER, NOW, claims, jwk, signed, signed_raw

from .test_verifying import VerifierCase


class DateTests(VerifierCase):
    def test_a_token_is_valid_until_it_expires_and_the_leeway_has_passed(self) -> None:
        for leeway in (0, 30, 600):
            self.use(jwk(), leeway_secs=leeway)
            self.assertEqual(NOW + 0.5, self.verify(signed(claims(exp=NOW + 0.5 - leeway))).expires_at)
            for exp in (NOW - leeway, NOW - leeway - 1, 0):
                self.check_refused(signed(claims(exp=exp)), "The token has expired.")

    def test_a_token_without_exp_is_refused(self) -> None:
        self.check_refused(signed(claims(exp=None)), "The token has no exp.")

    def test_a_token_is_not_valid_before_its_dates(self) -> None:
        for name in ("nbf", "iat"):
            self.assertEqual("alice", self.verify(signed(claims(**{name: NOW + 30}))).subject)
            self.check_refused(signed(claims(**{name: NOW + 31})), f"The token is not yet valid ({name}).")
        self.clock.advance(1)
        self.assertEqual("alice", self.verify(signed(claims(nbf=NOW + 31))).subject)

    def test_dates_of_other_types_are_refused(self) -> None:
        value: object
        for name in ("exp", "nbf", "iat"):
            for value in ("1900000000", True, False, [], {}, [NOW], -1, 2**53 + 1, 10**400, 1e300, "", "never"):
                self.check_refused(
                    signed(claims(**{name: value})),
                    f"The {name} of the token is not a date: seconds since 1970, as a number.",
                )
            payload = json.dumps(claims() | {name: None}).encode()
            self.check_refused(
                signed(payload), f"The {name} of the token is not a date: seconds since 1970, as a number."
            )

    def test_numbers_that_are_none_are_refused(self) -> None:
        for number in (b"NaN", b"Infinity", b"-Infinity"):
            self.check_refused(
                signed(b'{"sub":"a","exp":' + number + b"}"),
                "The payload of the token has NaN or Infinity, which is not JSON.",
            )
        self.check_refused(
            signed(b'{"sub":"a","exp":1e999}'),
            "The exp of the token is not a date: seconds since 1970, as a number.",
        )


class IssuerAndAudienceTests(VerifierCase):
    def test_another_issuer_is_refused(self) -> None:
        issuer: object
        for issuer in (None, "", f"{ISSUER}/", "https://attacker.example", ISSUER.upper(), [ISSUER], {}, 1, True):
            self.check_refused(signed(claims(iss=issuer)), "The token is of another issuer (iss).")

    def test_any_issuer_is_accepted_without_the_setting(self) -> None:
        self.use(jwk(), issuer=None)
        self.assertEqual("alice", self.verify(signed(claims(iss=None))).subject)

    def test_one_of_several_audiences_is_enough(self) -> None:
        self.use(jwk(), audience=("a", "b"))
        for audience in ("a", "b", ["b"], ["x", "a", "y"]):
            self.assertEqual("alice", self.verify(signed(claims(aud=audience))).subject)

    def test_other_audiences_are_refused(self) -> None:
        for audience in ("", "other", AUDIENCE + "x", AUDIENCE[:-1], AUDIENCE.upper(), [], ["other"], [AUDIENCE + " "]):
            self.check_refused(signed(claims(aud=audience)), "The token is for another audience (aud).")

    def test_an_audience_that_is_missing_or_of_another_type_is_refused(self) -> None:
        for audience in (None, 1, True, {AUDIENCE: True}, [AUDIENCE, 1], [[AUDIENCE]]):
            self.check_refused(
                signed(claims(aud=audience)), "The token has no aud, or it is not a string or a list of strings."
            )

    def test_a_token_with_an_audience_is_refused_without_the_setting(self) -> None:
        self.use(jwk(), audience=())
        self.assertEqual("alice", self.verify(signed(claims(aud=None))).subject)
        self.check_refused(signed(claims()), "The token is for another audience (aud).")


class RequiredClaimTests(VerifierCase):
    MESSAGE = "The token lacks a required claim, or the claim has another value."

    def test_required_claims_must_be_there(self) -> None:
        self.use(jwk(), required_claims=("email", "realm.name"))
        self.assertEqual("alice", self.verify(signed(claims(email="", realm={"name": 0}))).subject)
        for changes in ({"email": "x"}, {"realm": {"name": "x"}}, {"email": "x", "realm": "name"},
                        {"email": "x", "realm": {}}, {"email": "x", "realm": ["name"]}):  # fmt: skip
            self.check_refused(signed(claims(**changes)), self.MESSAGE)

    def test_null_is_not_there(self) -> None:
        self.use(jwk(), required_claims=("email",))
        self.check_refused(signed(json.dumps(claims() | {"email": None}).encode()), self.MESSAGE)

    def test_required_values_are_compared_as_text(self) -> None:
        value: object
        for required, good, bad in (
            ("azp=app", ("app", ["x", "app"]), ("App", "", ["app2"], {"app": 1}, [["app"]], 1)),
            ("email_verified=true", (True, "true", [True]), (False, 1, "True", None)),
            ("level=3", (3, "3"), (3.5, 30, "03")),
            ("x==", ("=",), ("", "==")),
            ("empty=", ("",), ("x", [], None)),
        ):
            self.use(jwk(), required_claims=(required,))
            name = required.partition("=")[0]
            for value in good:
                self.assertEqual("alice", self.verify(signed(claims(**{name: value}))).subject, (required, value))
            for value in bad:
                self.check_refused(signed(claims(**{name: value})), self.MESSAGE)

    def test_a_claim_whose_name_has_dots_is_found(self) -> None:
        self.use(jwk(), required_claims=("https://example.com/role=admin",))
        self.assertEqual("alice", self.verify(signed(claims(**{"https://example.com/role": "admin"}))).subject)


class SubjectAndGroupTests(VerifierCase):
    def test_a_subject_is_a_short_printable_string(self) -> None:
        for subject in ("a", "CN=alice,O=Example Corp", "ä", "x" * 512, "auth0|123"):
            self.assertEqual(subject, self.verify(signed(claims(sub=subject))).subject)
        for bad in (
            None,
            "",
            "x" * 513,
            1,
            True,
            ["alice"],
            {"alice": 1},
            "a\nb",
            "a\0",
            "\x1b[31m",
            "a\u202eb",
            "a\x7f",
        ):
            self.check_refused(
                signed(claims(sub=bad)), "The subject of the token is not a string of 1 to 512 printable characters."
            )

    def test_groups_are_a_list_of_strings_or_one(self) -> None:
        for value, expected in ((None, set()), ([], set()), (["a", "b", "a"], {"a", "b"}), ("staff", {"staff"}),
                                ("Domain Admins", {"Domain Admins"})):  # fmt: skip
            self.assertEqual(expected, self.verify(signed(claims(groups=value))).groups)
        for bad in (1, True, {}, {"a": True}, [1], [None], ["a", ["b"]], [""], "", ["a\n"], ["x" * 513]):
            self.check_refused(
                signed(claims(groups=bad)),
                "The groups of the token are not a list of strings of 1 to 512 printable characters.",
            )

    def test_scopes_are_separated_by_blanks(self) -> None:
        for name in ("scope", "scp"):
            self.use(jwk(), groups_claim=name)
            self.assertEqual({"read", "write:x"}, self.verify(signed(claims(**{name: "read  write:x"}))).groups)
            self.assertEqual(set(), self.verify(signed(claims(**{name: ""}))).groups)
            self.assertEqual({"a b"}, self.verify(signed(claims(**{name: ["a b"]}))).groups)

    def test_a_token_id_is_a_short_printable_string(self) -> None:
        self.assertEqual("", self.verify(signed()).token_id)
        for bad in ("", 1, ["a"], "a\nb", "x" * 513):
            self.check_refused(
                signed(claims(jti=bad)), "The jti of the token is not a string of 1 to 512 printable characters."
            )


class PayloadTests(VerifierCase):
    def test_payloads_that_are_no_single_object_are_refused(self) -> None:
        for payload, message in (
            (b'{"sub":"alice","sub":"root","exp":1900000000}', "has a name twice"),
            (b'{"sub":"a","x":{"a":1,"a":2}}', "has a name twice"),
            (b'["alice"]', "is not a JSON object"),
            (b"1", "is not a JSON object"),
            (b"null", "is not a JSON object"),
            (b"{", "is not valid JSON"),
            (b"{}{}", "is not valid JSON"),
            (b"\xff", "is not valid JSON"),
            ('{"sub":"a"}'.encode("utf-16"), "is not valid JSON"),
            (b'{"sub":"a\\ud800"}', "has an escape that is not a character"),
            (b'{"x":' + b"[" * 17 + b"]" * 17 + b"}", "has values nested more than 16 deep"),
            (b'{"a":' * 20 + b"1" + b"}" * 20, "has values nested more than 16 deep"),
            (b'{"x":' + b"[" * 1000 + b"]" * 1000 + b"}", "has values nested more than 16 deep"),
            (b'{"x":[' + b"[]," * 1023 + b"1]}", "has more than 1024 arrays and objects"),
        ):
            self.check_refused(signed(payload), f"The payload of the token {message}.")

    def test_many_flat_values_are_accepted(self) -> None:
        self.assertEqual("alice", self.verify(signed(claims(x=[[]] * 1022))).subject)
        found = self.verify(signed(claims(x=[[1], [2], {"a": []}] * 20, e="\U0001f600")))
        self.assertEqual(60, len(found.claims["x"]))  # type: ignore[arg-type]

    def test_a_token_inside_of_a_token_is_refused(self) -> None:
        self.check_refused(
            signed_raw(b'{"alg":"RS256","cty":"JWT","kid":"k1"}', signed()),
            "The payload of the token is not valid JSON.",
        )
