"""Explanations of failures to connect, from the texts of libpq and PostgreSQL."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.postgres.failures import ConnectionFailure, describe_failure

AT = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '


class FailureTests(SynchronousTestCase):
    def failure(self, text: str) -> ConnectionFailure:
        return describe_failure(text, {"password": "hush"})

    def test_only_failures_that_need_a_change_are_lasting(self) -> None:
        for text in (
            "failed to resolve host 'db.example': [Errno -3] Temporary failure in name resolution",
            AT + "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
            AT + "timeout expired",
            AT + "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally",
            AT + "FATAL:  sorry, too many clients already",
            AT + "FATAL:  the database system is starting up",
            AT + "FATAL:  the database system is shutting down",
            AT + "server is in hot standby mode",
        ):
            self.assertFalse(self.failure(text).lasting, text)
        for text in (
            AT + 'FATAL:  password authentication failed for user "me"',
            AT + "fe_sendauth: no password supplied",
            AT + 'FATAL:  role "me" does not exist',
            AT + 'FATAL:  database "streams" does not exist',
            AT + 'FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "me", database "streams", no encryption',
            AT + "server does not support SSL, but SSL was required",
            AT + "SSL error: certificate verify failed",
            AT + 'root certificate file "/root.crt" does not exist',
            'connection is bad: definition of service "x" not found',
        ):
            self.assertTrue(self.failure(text).lasting, text)

    def test_only_a_database_that_is_starting_is_waited_for_longer(self) -> None:
        self.assertTrue(self.failure(AT + "FATAL:  the database system is starting up").starting)
        self.assertFalse(self.failure(AT + "FATAL:  the database system is shutting down").starting)

    def test_the_reason_is_one_line_without_hints_and_severity(self) -> None:
        failure = self.failure(AT + "Connection refused\n\tIs the server running on that host?")
        self.assertEqual(
            'connection to server at "10.0.0.1", port 5432 failed: Connection refused. Start the database, or correct '
            "host and port in the connection string (storage.postgres.dsn).",
            str(failure),
        )
        failure = self.failure(
            AT + "FATAL:  not yet accepting connections\nDETAIL:  Consistent state has not been reached."
        )
        self.assertTrue(failure.reason.endswith("failed: not yet accepting connections"), failure.reason)
        failure = self.failure(AT + 'FATAL:  role "me" does not exist\n')
        self.assertEqual(
            'connection to server at "10.0.0.1", port 5432 failed: role "me" does not exist', failure.reason
        )

    def test_each_host_is_named_once_if_there_are_several(self) -> None:
        one, other = (
            f'connection failed: connection to server at "{host}", port 1 failed: {why}'
            for host, why in (
                ("a", "Connection refused\n\tIs the server running?"),
                ("b", "FATAL:  no password supplied"),
            )
        )
        text = f"{other}\nMultiple connection attempts failed. All failures were:\n"
        text += f"- host: 'a', port: '1', hostaddr: '1': {one}\n- host: 'b', port: '1', hostaddr: '2': {other}"
        failure = self.failure(text)
        self.assertEqual(
            'connection to server at "a", port 1 failed: Connection refused; connection to server at "b", port 1 '
            "failed: no password supplied",
            failure.reason,
        )
        # The first one may pass.
        self.assertFalse(failure.lasting)

    def test_a_text_that_is_not_known_has_an_advice_too(self) -> None:
        failure = self.failure(AT + "FATAL:  Datenbank \u00bbstreams\u00ab existiert nicht")
        self.assertIn("Correct the connection string (storage.postgres.dsn), or read the database's log.", str(failure))
        self.assertFalse(failure.lasting)

    def test_a_password_in_the_text_is_hidden(self) -> None:
        self.assertIn("token *** was wrong", str(self.failure(AT + "token hush was wrong")))

    def test_names_of_hosts_and_databases_are_not_taken_for_reasons(self) -> None:
        failure = self.failure("failed to resolve host 'password.invalid': [Errno -2] Name or service not known")
        self.assertFalse(failure.lasting)
        self.assertIn("Correct the host", failure.advice)
        failure = self.failure(AT + 'FATAL:  database "certificate" does not exist')
        self.assertIn("Create it", failure.advice)
