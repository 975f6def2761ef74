"""The records of static tokens: what a line may have, and what a token looks like."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.tokens.hashes import ScryptCost, hash_secret, parse_hash
from durable_streams.server.identity.tokens.records import (
    RecordError,
    new_token,
    parse_record,
    parse_token,
    render_record,
)

CHEAP = ScryptCost(ln=4, r=1, p=1)
HASH = str(hash_secret(b"x" * 43, CHEAP))

texts = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=20)


def line(**fields: Any) -> bytes:
    return json.dumps({"id": "a1", "subject": "alice", "hash": HASH} | fields).encode()


class NewTokenTests(SynchronousTestCase):
    def test_a_token_has_an_id_and_256_random_bits(self) -> None:
        token, record = new_token("alice", cost=CHEAP)
        prefix, token_id, secret = token.split("_")
        self.assertEqual(("dst", record.id, 12, 43), (prefix, token_id, len(token_id), len(secret)))
        self.assertTrue((token_id + secret).isalnum())
        self.assertTrue(parse_hash(record.hash).matches(secret.encode()))
        self.assertNotEqual(token, new_token("alice", cost=CHEAP)[0])

    def test_the_record_does_not_have_the_secret(self) -> None:
        token, record = new_token("alice", cost=CHEAP)
        secret = token.split("_")[2]
        self.assertNotIn(secret, render_record(record).decode() + repr(record))

    @given(texts, st.lists(texts, max_size=3), st.dictionaries(texts, texts, max_size=3), st.integers(0, 4_000_000_000))
    def test_the_line_of_a_record_can_be_parsed(
        self, subject: str, groups: list[str], claims: dict[str, str], now: int
    ) -> None:
        _, record = new_token(subject, tuple(groups), claims, now, 60.0, CHEAP)
        rendered = render_record(record)
        self.assertNotIn(b"\n", rendered)
        found = parse_record(rendered)
        self.assertEqual(record, found.record)
        self.assertEqual(record.hash, str(found.hash))
        self.assertEqual(datetime.fromtimestamp(now + 60, UTC), found.record.expires_at)

    def test_an_expiry_after_the_year_9999_is_an_error(self) -> None:
        for expires_in in (1e12, 1e300):
            with self.assertRaises(OverflowError):
                new_token("alice", expires_in=expires_in, cost=CHEAP)

    def test_a_subject_that_a_record_cannot_have_is_an_error(self) -> None:
        for subject in ("", " alice", "a\nb", "a\x00", "x" * 257):
            with self.assertRaises(RecordError):
                new_token(subject, cost=CHEAP)


class ParseRecordTests(SynchronousTestCase):
    def test_only_id_subject_and_hash_are_required(self) -> None:
        record = parse_record(line()).record
        self.assertEqual(("a1", "alice", (), {}, None), (record.id, record.subject, record.groups, record.claims, None))

    def test_lines_that_are_no_records_are_refused_with_a_reason(self) -> None:
        for text, reason in (
            (b"alice", "is not a JSON object"),
            (b"\xff\xfe", "is not a JSON object"),
            (b"[]", "is not a token"),
            (b"{}", "required field `id`"),
            (line(subject=7), "$.subject"),
            (line(secret="x"), "unknown field"),
            (line(id="a-1"), "has an id"),
            (line(id="a" * 33), "has an id"),
            (line(subject=""), "the subject"),
            (line(groups=["staff", "a\tb"]), "a group"),
            (line(claims={"": "x"}), "a claim"),
            (line(claims={"x": 7}), "$.claims"),
            (line(hash="plain"), "has a hash that is not of the form"),
            (line(expires_at="2026-01-01"), "$.expires_at"),
            (line(expires_at="2026-01-01T00:00:00"), "without a time zone"),
        ):
            error = self.assertRaises(RecordError, parse_record, text)
            self.assertIn(reason, str(error))

    def test_a_hash_is_never_in_a_message(self) -> None:
        for text in (line(hash=HASH + "*"), line(hash=[HASH]), line()[:-2], line(id=HASH), line(created_at=HASH)):
            error = self.assertRaises(RecordError, parse_record, text)
            self.assertNotIn(HASH[30:], str(error))

    @given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
    def test_no_line_leads_to_another_error(self, text: bytes) -> None:
        with self.assertRaises(RecordError):
            parse_record(text)


class ParseTokenTests(SynchronousTestCase):
    def test_the_parts_of_a_token(self) -> None:
        self.assertEqual(("a1", b"x" * 43), parse_token(b"dst_a1_" + b"x" * 43))

    def test_secrets_of_other_programs_may_be_base64url(self) -> None:
        self.assertEqual(("a1", b"a_b-" * 8), parse_token(b"dst_a1_" + b"a_b-" * 8))

    def test_other_forms_are_not_static_tokens(self) -> None:
        for token in (
            b"",
            b"dst_a1",
            b"dst_a1_" + b"x" * 15,
            b"dst_a1_" + b"x" * 129,
            b"dst__" + b"x" * 43,
            b"dst_a-1_" + b"x" * 43,
            b"DST_a1_" + b"x" * 43,
            b"dst_a1_" + b"x" * 43 + b"\n",
            b"dst_a1_" + b"x" * 42 + b".",
        ):
            self.assertIs(None, parse_token(token), token)
