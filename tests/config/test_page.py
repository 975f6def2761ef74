"""docs/configuration.rst agrees with the code: settings, defaults, profiles, older names, messages and warnings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from durable_streams.server.config.ineffective import INEFFECTIVE
from durable_streams.server.config.layers import PROFILES
from durable_streams.server.config.legacy import LEGACY, RUST_LOG

from .test_layers import OPEN, LoadTests, defaults

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs" / "configuration.rst").read_text()


def section(title: str) -> str:
    """Return the text below a title, up to the next title."""
    text = PAGE.partition(f"\n{title}\n--")[2]
    assert text, title
    return re.split(r"\n\n\n", text.partition("\n")[2])[0]


def rows(text: str) -> Iterator[tuple[str, str]]:
    """Yield the rows of the first simple table with two columns: continuation lines are joined to their rows."""
    line, *lines = text[text.index("\n===") + 1 :].splitlines()
    place = line.index(" ") + 1
    left, right = "", ""
    for row in lines:
        if row[:place].strip():
            if left:
                yield left, right
            left, right = row[:place].strip(), row[place:].strip()
            if left.startswith("==="):
                return
        else:
            right += " " + row.strip()


def listed_settings() -> list[tuple[str, str, str]]:
    """Read the table of all settings: names, defaults and meanings."""
    found = re.findall(
        r"^   \* - ``([a-z_.]+)``\n     - (.+)\n     - ((?:.+\n(?:       .+\n)*))", section("All settings") + "\n", re.M
    )
    return [(name, default, meaning) for name, default, meaning in found]


def meant(cell: str, default: Any) -> Any:
    """Return the value that a reader takes a default of the page for, in a setting whose default has this type."""
    words = re.findall("``([^`]+)``", cell)
    if cell in ("not set", "none"):
        return None if cell == "not set" else ()
    if isinstance(default, tuple):
        return tuple(words)
    if isinstance(default, bool):
        return {"true": True, "false": False}[words[0]]
    return int(cell) if isinstance(default, int) else type(default)(words[0])


class PageTests(LoadTests):
    def test_the_table_has_each_setting_with_its_default_in_the_order_of_the_code(self) -> None:
        expected = list(defaults())
        listed = [(name, cell) for name, cell, _ in listed_settings()]
        self.assertEqual([name for name, _ in expected], [name for name, _ in listed])
        for (name, default), (_, cell) in zip(expected, listed, strict=True):
            self.assertEqual(default, meant(cell, default), name)

    def test_the_table_of_settings_without_effect_has_the_reasons_of_the_warnings(self) -> None:
        table = {name.strip("`"): reason.replace("`", "") for name, reason in rows(section("Settings without effect"))}
        self.assertEqual(INEFFECTIVE, table)

    def test_the_page_marks_exactly_the_settings_without_effect(self) -> None:
        self.assertEqual(set(INEFFECTIVE), {name for name, _, meaning in listed_settings() if "no effect" in meaning})

    def test_each_older_name_is_listed_with_the_setting_that_it_sets(self) -> None:
        found: dict[str, str] = {}
        for names, setting in rows(section("Names of other servers")):
            first, *more = re.findall(r"``([a-z_.]+)``", names)
            target = re.findall(r"``([a-z_.]+)``", setting)[0]
            found[first] = target
            for name in more:
                found[name] = target.rpartition(".")[0] + "." + name.rpartition(".")[2]
        self.assertEqual({name: setting for name, setting in LEGACY.items() if name != RUST_LOG}, found)

    def test_exactly_the_built_in_profiles_are_listed(self) -> None:
        self.assertEqual(list(PROFILES), [name.strip("`") for name, _ in rows(section("Profiles"))])

    def test_the_messages_of_the_page_are_those_of_the_code(self) -> None:
        text = section("What if the server does not start?").partition("::\n\n")[2].partition("\n\n")[0]
        shown = [" ".join(message.split()) for message in re.split(r"\n    (?=\[)", f"\n{text}") if message.strip()]
        unknown = self.refusal(file=self.file("[limits]\nmax_stream_byte = 5"))
        broken = self.refusal("prod-tls", self.file("transport.tls.cert_path = 'cert.pem'"))
        expected = [f"[{error.phase}] {error}" for error in (unknown, broken)]
        self.assertEqual(
            [message.replace(str(self.path), "FILE") for message in expected],
            [message.replace("/etc/durable-streams/local.toml", "FILE") for message in shown],
        )

    def test_each_warning_of_the_page_is_given(self) -> None:
        warned = section("What if the server does not start?").partition("Ten things only cause a warning")[2]
        self.assertEqual(10, len(re.findall("^- ", warned, re.M)))
        loaded = self.loaded(
            None,
            self.file("admin.enabled = true\nadmin.token_file = 'tokens'\nlimits.max_storage_jobs = 64"),
            {RUST_LOG: "no filter"},
        )
        in_production = self.loaded("prod", None, {"DS_HTTP__CORS_ORIGINS": "https://a.example", **OPEN})
        in_a_database = self.loaded(
            None,
            self.file("storage.mode = 'postgres'\nstorage.data_dir = 'data'"),
            {"DS_HTTP__CORS_ORIGINS": "https://a.example", **OPEN},
        )
        with_tokens = self.loaded(
            None,
            self.file(
                "auth.methods = ['token']\nauth.token_file = 'f'\nauth.rules = ['allow anyone all **']\n"
                "auth.certificate_name = 'cn'\naudit.file = 'audit.jsonl'\naudit.events = 'none'"
            ),
            {"DS_HTTP__CORS_ORIGINS": "https://a.example"},
        )
        for warning, beginning in zip(
            [
                *sorted(loaded.warnings),
                *in_production.warnings,
                *in_a_database.warnings,
                *with_tokens.warnings,
            ],
            (
                *("RUST_LOG ", "admin.token_file ", "http.cors_origins ", "limits.max_storage_jobs "),
                *("server.bind_address ", "http.public_url ", "storage.data_dir "),
                *("auth.methods ", "auth.certificate_name ", "audit.file "),
            ),
            strict=True,
        ):
            self.assertTrue(warning.startswith(beginning), warning)
            self.assertIn(f"``{beginning.strip()}``", PAGE)
