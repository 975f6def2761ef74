"""Static tokens beside their definition, while their file is changed, damaged and repaired."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.identity.credentials import BearerToken
from durable_streams.server.identity.principal import Principal
from durable_streams.server.identity.tokens.checker import StaticTokens
from durable_streams.server.identity.tokens.file import TokenFileError, add_token, remove_tokens
from durable_streams.server.identity.tokens.hashes import ScryptCost
from durable_streams.server.identity.tokens.records import new_token

COST = ScryptCost(ln=1, r=1, p=1)


class TokensMachine(RuleBasedStateMachine):
    """The tokens in force are those of the file when it could be read last."""

    tokens = Bundle("tokens")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "tokens")
        self.path.touch(0o600)
        self.checker = StaticTokens(str(self.path), Clock())
        # Token -> subject: in the file, and in force.
        self.stored: dict[str, str] = {}
        self.in_force: dict[str, str] = {}
        self.damaged = False
        # Principals that were given out, with their tokens.
        self.given: list[tuple[str, Principal]] = []

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(target=tokens, subject=st.sampled_from(["alice", "bob"]))
    def create(self, subject: str) -> str:
        token, record = new_token(subject, cost=COST)
        if self.change(lambda: add_token(str(self.path), record)):
            self.stored[token] = subject
        return token

    @rule(token=tokens)
    def revoke(self, token: str) -> None:
        if self.change(lambda: remove_tokens(str(self.path), [token.split("_")[1]])):
            del self.stored[token]

    @rule(token=tokens)
    def rename_subject(self, token: str) -> None:
        """Edit the file by hand."""
        lines = self.path.read_bytes().split(b"\n")
        mark = f'"id":"{token.split("_")[1]}","subject":"'.encode()
        self.path.write_bytes(b"\n".join(line.replace(mark, mark + b"x") for line in lines))
        if token in self.stored:
            self.stored[token] = f"x{self.stored[token]}"

    @rule(kind=st.sampled_from(["line", "mode"]))
    def damage(self, kind: str) -> None:
        if not self.damaged:
            self.damaged = True
            self.before = self.path.read_bytes()
            if kind == "mode":
                self.path.chmod(0o640)
            else:
                self.path.write_bytes(self.before + b"{\n")
            self.intact = dict(self.stored)

    @rule()
    def repair(self) -> None:
        if self.damaged:
            self.damaged = False
            self.path.write_bytes(self.before)
            self.path.chmod(0o600)
            self.stored = self.intact

    @rule()
    def reload(self) -> None:
        results: list[bool] = []
        self.checker.reload().addCallback(results.append)
        assert results
        if not self.damaged:
            self.in_force = dict(self.stored)
        assert self.checker.stale == self.damaged

    @rule(token=tokens)
    def present(self, token: str) -> None:
        found = self.ask(token)
        assert (None if found is None else found.subject) == self.in_force.get(token)
        if found is not None:
            self.given.append((token, found))

    @rule(token=tokens)
    def present_a_wrong_secret(self, token: str) -> None:
        assert self.ask(f"{token[:-1]}{'0' if token[-1] != '0' else '1'}") is None

    @invariant()
    def principals_are_current_while_their_tokens_are_in_force(self) -> None:
        for token, principal in getattr(self, "given", ()):
            expected = self.in_force.get(token) == principal.subject
            # A token that was renamed and renamed back would have another principal; it cannot be renamed back.
            assert self.checker.is_current(principal) == expected, (token, principal)

    def change(self, change: Any) -> bool:
        """Change the file, and return whether that was possible."""
        before = self.path.read_bytes()
        try:
            change()
        except TokenFileError:
            assert self.path.read_bytes() == before
            return False
        assert not self.damaged
        return True

    def ask(self, token: str) -> Principal | None:
        results: list[Any] = []
        try:
            found = self.checker.requestAvatarId(BearerToken(token.encode()))
        except NotAuthenticated:
            return None
        if isinstance(found, Deferred):
            found.addCallbacks(results.append, lambda failure: failure.trap(NotAuthenticated))
            return results[0] if results else None
        assert isinstance(found, Principal)
        return found


class ChangesTests(SynchronousTestCase):
    def test_the_tokens_in_force_are_those_of_the_last_file_that_could_be_used(self) -> None:
        run_state_machine_as_test(
            TokensMachine, settings=settings(max_examples=30, stateful_step_count=40, deadline=None)
        )
