"""Access control: files are read again when they change, and everybody who needs to know is notified."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.clocks import clock_of
from durable_streams.server.identity.authentication import Authentication
from durable_streams.server.identity.control import CHECK_INTERVAL, AccessControl
from durable_streams.server.identity.policy import Policy, parse_rules
from durable_streams.server.identity.principal import ANONYMOUS
from durable_streams.server.identity.realm import PrincipalRealm
from durable_streams.server.identity.rules_file import MAX_SIZE, RulesFile, RulesFileError, load_rules


def control_of(clock: Any, policy: Policy | None = None, *sources: Any) -> AccessControl:
    authentication = Authentication(Portal(PrincipalRealm()), (), True, clock_of(clock))
    return AccessControl(authentication, policy or Policy(), clock, sources)


class Tokens:
    """A source that counts what is done with it."""

    def __init__(self, *files: str) -> None:
        self.files = files
        self.calls: list[str] = []
        self.outcome: Any = True
        self.notify: Callable[[], None] | None = None

    def on_change(self, call: Callable[[], None]) -> None:
        self.notify = call

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def reload(self) -> Any:
        self.calls.append("reload")
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class ControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.path = os.path.abspath(self.mktemp())
        Path(self.path).write_text("1")
        self.tokens = Tokens(self.path)
        self.control = control_of(self.clock, None, self.tokens)
        self.heard: list[int] = []
        self.control.on_change(lambda: self.heard.append(self.control.generation))

    def reloads(self) -> int:
        return self.tokens.calls.count("reload")

    def change(self, text: str) -> None:
        """Replace the file by another, so that its state differs whatever the resolution of its times is."""
        other = Path(f"{self.path}.new")
        other.write_text(text)
        other.replace(self.path)

    def test_a_changed_file_is_read_again_within_a_second(self) -> None:
        self.control.start()
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(0, self.reloads())
        self.change("22")
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(1, self.reloads())
        self.clock.pump([CHECK_INTERVAL] * 3)
        self.assertEqual(1, self.reloads())
        self.control.stop()

    def test_a_removed_file_is_read_again_once(self) -> None:
        self.control.start()
        os.unlink(self.path)
        self.clock.pump([CHECK_INTERVAL] * 3)
        self.assertEqual(1, self.reloads())
        self.control.stop()

    def test_a_file_that_changed_just_before_the_start_is_read_again(self) -> None:
        clock = Clock()
        clock.advance(os.stat(self.path).st_ctime + 1)
        control = control_of(clock, None, self.tokens)
        control.start()
        clock.advance(CHECK_INTERVAL)
        self.assertEqual(1, self.reloads())
        clock.advance(CHECK_INTERVAL)
        self.assertEqual(1, self.reloads())
        control.stop()

    def test_a_file_that_cannot_be_read_for_now_is_tried_each_second(self) -> None:
        self.control.start()
        self.change("22")
        self.tokens.outcome = False
        self.clock.pump([CHECK_INTERVAL] * 3)
        self.assertEqual(3, self.reloads())
        self.tokens.outcome = True
        self.clock.pump([CHECK_INTERVAL] * 3)
        self.assertEqual(4, self.reloads())
        self.control.stop()

    def test_the_next_check_waits_for_the_present_one(self) -> None:
        self.control.start()
        self.change("22")
        waiting: Deferred[bool] = Deferred()
        self.tokens.outcome = waiting
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual([], self.clock.getDelayedCalls())
        waiting.callback(True)
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.control.stop()

    def test_an_error_of_a_source_is_logged_and_the_checks_go_on(self) -> None:
        self.control.start()
        self.tokens.outcome = RuntimeError("planned")
        self.change("22")
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        self.tokens.outcome = True
        self.change("333")
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(2, self.reloads())
        self.control.stop()

    def test_a_reload_reads_all_sources_and_reports_its_end(self) -> None:
        waiting: Deferred[bool] = Deferred()
        self.tokens.outcome = waiting
        done = self.control.reload()
        self.assertNoResult(done)
        waiting.callback(True)
        self.successResultOf(done)
        self.assertEqual(["reload"], self.tokens.calls)
        self.successResultOf(control_of(self.clock).reload())

    def test_a_change_of_a_source_empties_the_caches_and_is_passed_on(self) -> None:
        forgotten: list[bool] = []
        self.patch(self.control.authentication, "forget", lambda: forgotten.append(True))
        assert self.tokens.notify is not None
        self.tokens.notify()
        self.assertEqual(([1], [True]), (self.heard, forgotten))

    def test_new_rules_are_passed_on(self) -> None:
        policy = parse_rules(["allow anyone read **"], "auth.rules")
        self.control.set_policy(policy)
        self.assertIs(policy, self.control.policy)
        self.assertEqual([1], self.heard)

    def test_all_are_notified_although_one_fails(self) -> None:
        control = control_of(self.clock)

        def fail() -> None:
            raise RuntimeError("planned")

        control.on_change(fail)
        control.on_change(lambda: self.heard.append(-1))
        control.set_policy(Policy())
        self.assertEqual([-1], self.heard)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_sources_are_started_and_stopped_once(self) -> None:
        for _ in range(2):
            self.control.start()
        for _ in range(2):
            self.control.stop()
        self.assertEqual(["start", "stop"], self.tokens.calls)
        self.assertEqual([], self.clock.getDelayedCalls())


class RulesFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)

    def write(self, text: str | bytes) -> None:
        Path(self.path).write_bytes(text.encode() if isinstance(text, str) else text)

    def file(self, text: str) -> RulesFile:
        self.write(text)
        return RulesFile(self.path, Clock())

    def logged(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    def refused(self, text: str | bytes | None = None) -> str:
        if text is not None:
            self.write(text)
        return str(self.assertRaises(RulesFileError, load_rules, self.path))

    def test_rules_are_read_with_their_lines_numbered(self) -> None:
        policy = self.file("# who may read\n\nallow anyone read a\n").policy
        self.assertEqual(f"{self.path} 3: allow anyone read a", policy.decide(ANONYMOUS, "read", "a").rule)

    def test_only_line_feeds_end_a_line(self) -> None:
        for separator in ("\u2028", "\u2029", "\x85"):
            text = f"# comment{separator}allow anyone all **\r\nallow anyone read a\r\n"
            try:
                rules = self.file(text).policy.rules
            except RulesFileError as error:
                self.assertIn("line 1: A rule must not have control characters", str(error))
            else:
                self.assertEqual(["allow anyone read a"], [rule.text for rule in rules])

    def test_the_error_names_the_line_and_the_fix(self) -> None:
        self.assertTrue(self.refused("allow anyone read a\nallow me\n").startswith(f"{self.path}, line 2: "))

    def test_a_file_that_cannot_be_read_is_refused(self) -> None:
        self.assertEqual(
            f"Cannot read {self.path}: No such file or directory. Create it, so that the server's user can read it.",
            self.refused(),
        )
        self.assertIn("is not text in UTF-8", self.refused(b"\xff"))
        self.assertIn(f"is larger than {MAX_SIZE} bytes", self.refused(b"#" * (MAX_SIZE + 1)))
        os.unlink(self.path)
        os.mkfifo(self.path)
        self.assertIn("is not a file", self.refused())

    def test_a_file_that_everybody_may_write_is_refused(self) -> None:
        self.write("allow anyone read a")
        os.chmod(self.path, 0o666)
        self.assertEqual(
            f"Every user of this machine may write {self.path}. Run: chmod o-w {self.path}", self.refused()
        )
        os.chmod(self.path, 0o664)
        self.assertEqual(1, len(load_rules(self.path).rules))

    def test_changed_rules_are_used_and_passed_on(self) -> None:
        rules = self.file("deny anyone read a")
        heard: list[bool] = []
        rules.on_change(lambda: heard.append(rules.policy.decide(ANONYMOUS, "read", "a").allowed))
        self.write("allow anyone read a")
        self.assertTrue(self.successResultOf(rules.reload()))
        self.assertEqual([True], heard)
        self.assertEqual([f"Reloaded auth.rules_file {self.path}; number of rules: 1."], self.logged())

    def test_rules_that_never_decide_are_logged_when_they_are_read_again(self) -> None:
        rules = self.file("deny anyone read a")
        self.write("allow anyone read **\ndeny anyone read a")
        self.assertTrue(self.successResultOf(rules.reload()))
        self.assertEqual(2, len(self.logged()))
        self.assertIn(f"{self.path} 2 never decides, since {self.path} 1 matches", self.logged()[0])

    def test_the_same_rules_are_no_change(self) -> None:
        rules = self.file("allow anyone read a")
        rules.on_change(lambda: self.fail("there is no change"))
        self.assertTrue(self.successResultOf(rules.reload()))

    def test_rules_on_other_lines_are_named_by_these(self) -> None:
        rules = self.file("allow anyone read a\n")
        heard: list[str | None] = []
        rules.on_change(lambda: heard.append(rules.policy.decide(ANONYMOUS, "read", "a").rule))
        self.write("# who may read\nallow anyone read a\n")
        self.assertTrue(self.successResultOf(rules.reload()))
        self.assertEqual([f"{self.path} 2: allow anyone read a"], heard)

    def test_invalid_rules_are_logged_once_and_the_present_ones_stay(self) -> None:
        rules = self.file("allow anyone read a")
        self.write("allow me")
        for _ in range(2):
            self.assertTrue(self.successResultOf(rules.reload()))
        self.assertTrue(rules.policy.decide(ANONYMOUS, "read", "a").allowed)
        [line] = self.logged()
        self.assertIn("auth.rules_file was not read again, its rules stay as they were. ", line)
        self.assertIn("line 1: ", line)

    def test_a_file_that_may_be_incomplete_is_used_when_it_has_not_changed_for_some_time(self) -> None:
        for text, is_wider in (("", False), ("deny anyone read b\nallow anyone read **", True)):
            clock = Clock()
            self.write("allow anyone read a\n")
            clock.advance(os.stat(self.path).st_mtime + 10)
            rules = RulesFile(self.path, clock)
            self.write(text)
            os.utime(self.path, (clock.seconds(), clock.seconds()))
            before = self.logged()
            self.assertFalse(self.successResultOf(rules.reload()))
            self.assertTrue(rules.policy.decide(ANONYMOUS, "read", "a").allowed)
            self.assertFalse(rules.policy.decide(ANONYMOUS, "read", "c").allowed)
            self.assertFalse(rules.stale)
            self.assertEqual(self.logged(), before)
            clock.advance(2)
            self.assertTrue(self.successResultOf(rules.reload()))
            self.assertIs(rules.policy.decide(ANONYMOUS, "read", "c").allowed, is_wider)

    def test_a_file_that_ends_with_a_line_break_is_used_at_once(self) -> None:
        clock = Clock()
        self.write("allow anyone read a")
        clock.advance(os.stat(self.path).st_mtime)
        rules = RulesFile(self.path, clock)
        self.write("allow anyone read b\n")
        os.utime(self.path, (clock.seconds(), clock.seconds()))
        self.assertTrue(self.successResultOf(rules.reload()))
        self.assertTrue(rules.policy.decide(ANONYMOUS, "read", "b").allowed)

    def test_a_missing_file_is_to_be_read_again_later(self) -> None:
        rules = self.file("allow anyone read a")
        os.unlink(self.path)
        self.assertFalse(self.successResultOf(rules.reload()))
        self.assertTrue(rules.policy.decide(ANONYMOUS, "read", "a").allowed)


class StaleFileTests(SynchronousTestCase):
    def test_a_file_is_stale_from_its_first_failure_until_it_can_be_used_again(self) -> None:
        path = Path(self.mktemp()).absolute()
        path.write_text("deny anyone read a")
        rules = RulesFile(str(path), Clock())
        control = control_of(Clock(), rules.policy, Tokens())
        control.add_source(rules)
        found = [control.stale_files()]
        for text in ("allow me", "allow me", "allow anyone read a"):
            path.write_text(text)
            self.successResultOf(control.reload())
            found.append(control.stale_files())
        # A source that is not a file has no state.
        self.assertEqual([{"auth.rules_file": stale} for stale in (False, True, True, False)], found)


class ThreadTests(TestCase):
    async def until_read_is_allowed(self, control: AccessControl) -> None:
        for _ in range(100):
            if control.policy.decide(ANONYMOUS, "read", "a").allowed:
                break
            await deferLater(reactor, 0.05)

    def started(self, path: Path) -> AccessControl:
        rules = RulesFile(str(path), reactor)
        control = control_of(reactor, rules.policy)
        rules.on_change(lambda: control.set_policy(rules.policy))
        control.add_source(rules)
        control.start()
        self.addCleanup(control.stop)
        return control

    async def test_rules_that_change_on_disk_are_used_within_seconds(self) -> None:
        path = Path(self.mktemp()).absolute()
        path.write_text("deny anyone read a")
        control = self.started(path)
        path.write_text("allow anyone read a")
        await self.until_read_is_allowed(control)
        self.assertEqual(1, control.generation)

    async def test_files_are_checked_again_after_a_restart(self) -> None:
        path = Path(self.mktemp()).absolute()
        path.write_text("deny anyone read a")
        control = self.started(path)
        await control.reload()
        control.stop()
        control.start()
        path.write_text("allow anyone read a\n")
        await self.until_read_is_allowed(control)
        self.assertEqual(1, control.generation)
