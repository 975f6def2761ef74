"""The command itself: its help, its version, its subcommands and the options before them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.cli import main, serve
from durable_streams.server.cli.program import COMMANDS, Program
from tests.support.commands import COMMAND, command, environment, run_command
from tests.support.skipping import skip_not_installed


class VersionTests(SynchronousTestCase):
    def test_the_version_is_that_of_the_distribution(self) -> None:
        result = CliRunner().invoke(main, ["--version"])
        installed = version("durable-streams-server")
        self.assertEqual((result.exit_code, result.stdout), (0, f"durable-streams-server, version {installed}\n"))


class HelpTests(SynchronousTestCase):
    def test_the_help_lists_each_command_with_the_first_sentence_of_its_help(self) -> None:
        assert isinstance(main, Program)
        shown = command("--help")
        self.assertEqual(0, shown.exit_code, shown.output)
        text = " ".join(shown.output.split())
        for entries in COMMANDS.values():
            for name, entry in entries.items():
                found = main.get_command(click.Context(main), name)
                assert found is not None
                self.assertEqual(name, found.name)
                self.assertEqual(entry.help, f"{found.get_short_help_str(200).rstrip('.')}.")
                self.assertIn(f" {name} {entry.help}", text)

    def test_each_command_has_help(self) -> None:
        for entries in COMMANDS.values():
            for name in entries:
                for option in ("--help", "-h"):
                    shown = command(name, option)
                    self.assertEqual(0, shown.exit_code, shown.output)
                    self.assertIn(f"Usage: durable-streams-server {name} ", shown.output)

    def test_each_command_that_prints_results_has_json(self) -> None:
        assert isinstance(main, Program)
        without = []
        for entries in COMMANDS.values():
            for name in entries:
                found = main.get_command(click.Context(main), name)
                assert found is not None
                commands = found.commands if isinstance(found, click.Group) else {"": found}
                for inner, each in commands.items():
                    if not any("--json" in parameter.opts for parameter in each.params):
                        without.append(f"{name} {inner}".rstrip())
        # The server prints its log, a removal nothing, and completions are for a shell.
        self.assertEqual(["serve", "signing-key remove", "completions"], without)

    def test_help_and_version_import_no_server(self) -> None:
        for option in ("--help", "--version"):
            code = (
                "import sys\n"
                "from durable_streams.server.cli import main\n"
                f"sys.argv[1:] = [{option!r}]\n"
                "try:\n    main()\n"
                "finally:\n"
                "    slow = {'twisted', 'rich', 'treq', 'durable_streams.server.config.layers'} & {*sys.modules}\n"
                "    print(sorted(slow), file=sys.stderr)\n"
            )
            ended = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60, check=False
            )
            self.assertEqual((0, "[]"), (ended.returncode, ended.stderr.strip()))

    def test_an_unknown_command_is_a_usage_error_that_names_the_nearest_one(self) -> None:
        result = command("chekc")
        self.assertEqual(2, result.exit_code)
        self.assertIn("No such command 'chekc'. Did you mean check?", result.stderr)
        self.assertEqual("", result.stdout)
        self.assertNotIn("Did you mean", command("zzz").stderr)

    def test_an_unknown_option_is_a_usage_error(self) -> None:
        for arguments in (("--nonsense",), ("config", "--nonsense"), ("config", "surplus")):
            result = command(*arguments)
            self.assertEqual((2, ""), (result.exit_code, result.stdout), result.output)


class SettingsOptionTests(SynchronousTestCase):
    """``--profile``, ``--config`` and ``--config-dir`` before and after the name of a command."""

    def bind_address(self, *arguments: str) -> str:
        result = CliRunner().invoke(
            main,
            list(arguments),
            env={
                "DS_SERVER__BIND_ADDRESS": None,
                "DS_HTTP__ALLOW_WILDCARD_CORS": "true",
                "DS_AUTH__ALLOW_ANONYMOUS": "true",
            },
        )
        self.assertEqual(0, result.exit_code, result.output)
        return next(line for line in result.stdout.splitlines() if line.startswith("server.bind_address"))

    def test_settings_options_are_accepted_before_and_after_the_command(self) -> None:
        file = Path(self.mktemp())
        file.write_text("server.bind_address = '127.0.0.3:1'\n")
        for arguments, source in (
            (("--profile", "prod", "config"), "# profile prod"),
            (("config", "--profile", "prod"), "# profile prod"),
            (("--config", str(file), "config"), f"# {file}"),
            (("--profile", "dev", "config", "--config", str(file)), f"# {file}"),
        ):
            self.assertTrue(self.bind_address(*arguments).endswith(source), arguments)

    def test_an_option_after_the_command_overrides_the_one_before(self) -> None:
        self.assertIn("# profile dev", self.bind_address("--profile", "prod", "config", "--profile", "dev"))


class NoCommandTests(SynchronousTestCase):
    def served(self, *arguments: str) -> list[str]:
        """Return the arguments of twistd's command."""
        with patch.object(serve, "_twistd") as twistd:
            result = CliRunner().invoke(main, list(arguments))
        self.assertEqual(0, result.exit_code, result.output)
        [call] = twistd.call_args_list
        found: list[str] = call.args[0]
        return found

    def test_without_a_command_the_server_runs(self) -> None:
        self.assertEqual([], self.served())
        self.assertEqual(["--profile=dev", "--config=x.toml"], self.served("--config", "x.toml", "--profile", "dev"))

    def test_serve_passes_its_options_to_the_daemon(self) -> None:
        self.assertEqual(
            ["--profile=dev", "--config-dir=/etc", "--listen=tcp:1", "--listen=http:2", "--check"],
            self.served(
                *("--profile", "prod", "--config-dir", "/etc"),
                *("serve", "--profile", "dev", "--listen", "tcp:1", "--listen", "http:2", "--check"),
            ),
        )


class ProcessTests(SynchronousTestCase):
    def test_the_module_and_the_installed_command_are_the_same(self) -> None:
        script = Path(sys.executable).with_name("durable-streams-server")
        if not script.exists():
            script = Path(shutil.which("durable-streams-server") or "")
        if not script.is_file():
            skip_not_installed("durable-streams-server", "pip install -e .")
        for arguments in (("check", "--help"), ("--version",)):
            printed = [
                subprocess.run([*start, *arguments], capture_output=True, env=environment(), timeout=60, check=False)
                for start in ((str(script),), COMMAND)
            ]
            self.assertEqual([0, 0], [ended.returncode for ended in printed])
            self.assertEqual(printed[0].stdout, printed[1].stdout)
            self.assertTrue(printed[0].stdout)

    def test_the_command_imports_no_reactor(self) -> None:
        code = "import sys, durable_streams.server.cli; sys.exit('twisted.internet.reactor' in sys.modules)"
        ended = subprocess.run([sys.executable, "-c", code], env=environment(), timeout=60, check=False)
        self.assertEqual(0, ended.returncode)

    def test_a_reader_that_goes_away_ends_the_command_quietly(self) -> None:
        for arguments in (("config",), ("config", "--json"), ("--help",), ("completions", "bash")):
            with subprocess.Popen(
                [*COMMAND, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(auth__allow_anonymous="true"),
            ) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                process.stdout.close()
                said = process.stderr.read().decode()
            self.assertEqual(0, process.returncode, said)
            self.assertEqual([], [line for line in said.splitlines() if not line.startswith("Warning: http.cors")])

    def test_a_full_disk_and_a_closed_stdout_are_errors(self) -> None:
        for redirection, reason in (
            (">/dev/full", "Cannot write the output: No space left on device."),
            (">&-", "Cannot write the output: the standard output is closed."),
        ):
            ended = subprocess.run(
                ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND, "config", "--profile", "dev"],
                capture_output=True,
                text=True,
                env=environment(http__allow_wildcard_cors="true"),
                timeout=60,
                check=False,
            )
            self.assertEqual((1, f"Error: {reason}\n"), (ended.returncode, ended.stderr))

    def test_python_m_runs_the_command_in_a_pipe_without_colour(self) -> None:
        ended = run_command("config", "--json")
        self.assertEqual(0, ended.returncode, ended.stderr)
        self.assertNotIn(b"\x1b", ended.stdout)
        self.assertEqual(1, ended.stdout.count(b"\n"))


class PublicNameTests(SynchronousTestCase):
    def test_each_public_name_of_the_package_is_imported_when_it_is_used(self) -> None:
        code = (
            "import sys, durable_streams.server as package\n"
            "assert 'twisted' not in sys.modules\n"
            "missing = [name for name in package.__all__ if getattr(package, name, None) is None]\n"
            "assert not missing, missing\n"
            "assert set(package.__all__) <= set(dir(package))\n"
            "assert not hasattr(package, 'nonsense')\n"
            "from durable_streams.server.errors import StreamsError\n"
            "assert package.StreamsError is StreamsError and package.errors.StreamsError is StreamsError\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60, check=False
        )
        self.assertEqual((0, ""), (ended.returncode, ended.stderr))
