"""The completion scripts."""

from __future__ import annotations

import subprocess

from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import COMMAND, command, environment


class CompletionTests(SynchronousTestCase):
    def test_a_script_is_printed_for_each_shell(self) -> None:
        for shell in ("bash", "zsh", "fish"):
            result = command("completions", shell)
            self.assertEqual((0, ""), (result.exit_code, result.stderr))
            self.assertIn(f"_DURABLE_STREAMS_SERVER_COMPLETE={shell}_complete", result.stdout)

    def test_another_shell_is_a_usage_error(self) -> None:
        result = command("completions", "csh")
        self.assertEqual(2, result.exit_code)
        self.assertIn("'bash', 'zsh', 'fish'", result.stderr)

    def completed(self, words: str, count: int) -> list[str]:
        """Return what the command answers to the script of bash."""
        variables = {"_DURABLE_STREAMS_SERVER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        ended = subprocess.run(
            COMMAND, capture_output=True, text=True, env=environment() | variables, timeout=60, check=False
        )
        return [line.partition(",")[2] for line in ended.stdout.splitlines()]

    def test_commands_and_options_are_completed(self) -> None:
        self.assertEqual(["check"], self.completed("durable-streams-server che", 1))
        self.assertEqual(["--data-dir"], self.completed("durable-streams-server check --da", 2))
