"""docs/access-rules.rst: its rules decide as it says, and its commands print what it shows."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.operations import OPERATIONS
from durable_streams.server.identity.policy import parse_rules
from durable_streams.server.identity.principal import ANONYMOUS, Grant, Principal
from tests.support.commands import run_command
from tests.support.daemon import CHECKOUT
from tests.support.shell import blocks_of

PAGE = CHECKOUT / "docs" / "access-rules.rst"
SETTINGS, _, *EXAMPLES, SESSION = blocks_of(PAGE)

ALICE = Principal("alice", "token")
ADMINISTRATOR = Principal("ada", "jwt", claims={"tenant": "acme", "role": ["admin", "user"]})
BANNED = Principal("bob", "jwt", claims={"tenant": "acme", "role": "banned"})
EMPLOYEE = Principal("eve", "jwt", claims={"tenant": "acme"})
INGEST = Principal("ingest", "token")
DASHBOARD = Principal("board", "token", frozenset({"dashboards"}))
REPORTING = Principal("CN=reporting,O=Example Corp", "certificate")
CLIENT = Principal("CN=client,O=Example Corp", "certificate")
WORKER = Principal("w1", "token", frozenset({"workers"}))
OPERATOR = Principal("op", "token", frozenset({"operators"}))

#: For each example in the order of the page: who, what, on which name, and whether it is allowed.
DECISIONS = (
    (
        (ALICE, "create", "users/alice/a", True),
        (ALICE, "read", "users/bob/a", True),
        (ALICE, "head", "users/bob/a", True),
        (ALICE, "append", "users/bob/a", False),
        (ANONYMOUS, "read", "users/bob/a", False),
    ),
    (
        (ADMINISTRATOR, "delete", "acme/a", True),
        (ADMINISTRATOR, "delete", "other/a", False),
        (EMPLOYEE, "append", "acme/a/b", True),
        (EMPLOYEE, "delete", "acme/a/b", False),
        (EMPLOYEE, "read", "other/a", False),
        (BANNED, "read", "acme/a", False),
        (Principal("x", "jwt"), "read", "acme/a", False),
    ),
    (
        (INGEST, "append", "events/a", True),
        (INGEST, "read", "events/a", False),
        (DASHBOARD, "read", "events/a", True),
        (ANONYMOUS, "read", "published/a", True),
        (ANONYMOUS, "read", "events/a", False),
    ),
    (
        (CLIENT, "delete", "a", True),
        (CLIENT, "admin", "", True),
        (REPORTING, "read", "a", True),
        (REPORTING, "append", "a", False),
        (REPORTING, "admin", "", False),
        (ALICE, "read", "a", False),
    ),
    (
        (WORKER, "subscribe", "__ds/subscriptions/w1", True),
        (WORKER, "subscribe", "__ds/subscriptions/w2", False),
        (WORKER, "subscribe", "jobs/a", True),
        (WORKER, "append", "jobs/a", True),
        (WORKER, "read", "other", False),
    ),
    (
        (ALICE, "fork-from", "templates/a", True),
        (ALICE, "create", "docs/alice/a", True),
        (ALICE, "fork-from", "docs/bob/a", False),
        (ALICE, "create", "templates/a", False),
    ),
    (
        (OPERATOR, "admin", "", True),
        (ALICE, "admin", "", False),
        (ALICE, "delete", "a", True),
    ),
)


class ExampleTests(SynchronousTestCase):
    def test_the_examples_decide_as_the_page_says(self) -> None:
        self.assertEqual(len(DECISIONS), len(EXAMPLES))
        for example, decisions in zip(EXAMPLES, DECISIONS, strict=True):
            policy = parse_rules(example.splitlines(), "page")
            for principal, operation, name, allowed in decisions:
                found = policy.decide(principal, operation, name).allowed
                self.assertEqual(allowed, found, (example, principal, operation, name))

    def test_a_worker_may_subscribe_to_the_pattern_of_jobs(self) -> None:
        policy = parse_rules(EXAMPLES[4].splitlines(), "page")
        self.assertTrue(policy.covers(WORKER, "subscribe", "jobs/**").allowed)
        self.assertFalse(policy.covers(WORKER, "subscribe", "**").allowed)

    def test_a_denial_of_everything_at_the_end_disables_signed_urls_unless_they_are_allowed(self) -> None:
        signed = Principal("", "signed-url", grants=(Grant(frozenset({"read"}), "a", literal=True),))
        for lines, allowed in (
            ([], True),
            (["deny anyone all **"], False),
            (["allow kind:signed-url all **", "deny anyone all **"], True),
        ):
            policy = parse_rules(lines, "page")
            self.assertEqual(allowed, policy.decide(signed, "read", "a").allowed, lines)
            self.assertFalse(policy.decide(signed, "read", "b").allowed, lines)

    def test_the_table_has_every_operation(self) -> None:
        table = PAGE.read_text().partition("Which operation does a request need?")[2].partition("\nExamples\n")[0]
        self.assertEqual(list(OPERATIONS), re.findall(r"(?m)^``([a-z-]+)`` {2,}\S", table))


class SessionTests(SynchronousTestCase):
    def test_the_commands_print_what_the_page_shows(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        rules = tomllib.loads(SETTINGS)["auth"]["rules"]
        (folder / "rules").write_text("\n".join(rules))
        commands = [command.partition("\n") for command in SESSION.removeprefix("$ ").split("\n$ ")]
        self.assertEqual(2, len(commands))
        for (line, _, expected), exit_status in zip(commands, (0, 1), strict=True):
            program, *arguments = shlex.split(line)
            self.assertEqual("durable-streams-server", program)
            ended = run_command(*arguments, folder=folder)
            self.assertEqual(
                (exit_status, expected, b""), (ended.returncode, ended.stdout.decode().rstrip("\n"), ended.stderr), line
            )
