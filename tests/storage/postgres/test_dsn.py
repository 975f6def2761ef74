"""The connection string: its parameters, and that no part of a password is in a message."""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StorageError
from durable_streams.server.storage.postgres.dsn import parse_dsn, without_password
from durable_streams.server.storage.postgres.failures import describe_failure

_PASSWORDS = st.text("ab12:/@?#%&='\\ []\u00e9", min_size=1, max_size=8).map(lambda text: f"hush{text}hush")


class DsnTests(SynchronousTestCase):
    def test_urls_and_keywords_are_accepted(self) -> None:
        expected = {"host": "db.example", "port": "5433", "user": "me", "password": "hu sh", "dbname": "streams"}
        for dsn in (
            "postgresql://me:hu%20sh@db.example:5433/streams",
            "postgres://me:hu%20sh@db.example:5433/streams",
            "host=db.example port=5433 user=me password='hu sh' dbname=streams",
        ):
            self.assertEqual(expected, parse_dsn(dsn))

    def test_an_empty_one_has_no_parameters(self) -> None:
        self.assertEqual({}, parse_dsn(""))

    def test_several_hosts_are_accepted(self) -> None:
        parameters = parse_dsn("postgresql://me@a.example:1,b.example:2/streams?target_session_attrs=read-write")
        self.assertEqual(("a.example,b.example", "1,2"), (parameters["host"], parameters["port"]))

    def test_what_libpq_does_not_understand_is_refused_without_a_part_of_it(self) -> None:
        for dsn in (
            "hush",
            "host=db.example password=hush hush",
            "postgresql://me:hu@hush@db.example/streams",
            "postgresql://me:hush/hush@db.example/streams",
            "postgresql://me:12/hush@db.example/streams",
            "postgresql://me:%zzhush@db.example/streams",
            "postgresql://me@db.example/streams?hush=1",
            "host=db.example port=hush",
        ):
            error = self.assertRaises(StorageError, parse_dsn, dsn)
            self.assertNotIn("hush", str(error))
            self.assertIn("storage.postgres.dsn is not a connection string of libpq. Write a URL", str(error))

    @given(_PASSWORDS, st.booleans())
    def test_no_part_of_a_password_is_in_a_message_whether_escaped_or_not(self, password: str, escaped: bool) -> None:
        text = quote(password, safe="") if escaped else password
        try:
            parameters = parse_dsn(f"postgresql://me:{text}@db.example:5433/streams")
        except StorageError as error:
            self.assertFalse(escaped)
            self.assertNotIn("hush", str(error))
            return
        said = f'host "{parameters["host"]}" port "{parameters["port"]}" {parameters.get("dbname")} {password}'
        self.assertNotIn("hush", str(describe_failure(f"connection failed: {said}", parameters)))

    @given(_PASSWORDS)
    def test_no_part_of_a_password_without_quotes_is_in_a_message(self, password: str) -> None:
        try:
            parameters = parse_dsn(f"host=db.example password={password} dbname=streams")
        except StorageError as error:
            self.assertNotIn("hush", str(error))
            return
        self.assertTrue({*parameters} <= {"host", "password", "dbname"}, parameters)
        self.assertNotIn("hush", without_password(parameters["password"], parameters))
