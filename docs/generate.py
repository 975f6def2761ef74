"""
Write what the documentation repeats of the code: ``python docs/generate.py``.

It writes the table of settings in ``docs/configuration.rst`` and ``etc/default.toml``, from the settings, their
defaults and their meanings (``durable_streams/server/config/meanings.py``). A test fails if a file is
not what this would write.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
# The script is run in a checkout, in which the server may not be installed.
sys.path.insert(0, str(ROOT))

from durable_streams.server.config.choices import CHOICES  # noqa: E402
from durable_streams.server.config.conversion import KINDS  # noqa: E402
from durable_streams.server.config.meanings import MEANINGS  # noqa: E402
from durable_streams.server.config.sections import Sections, value_of  # noqa: E402

CONFIGURATION: Final = ROOT / "docs" / "configuration.rst"
SAMPLE: Final = ROOT / "etc" / "default.toml"

_WIDTH: Final = 120
_TABLE_BEGINS: Final = ".. list-table::\n   :header-rows: 1\n   :widths: 40 20 40\n\n"
_TABLE_ENDS: Final = "\n.. [#data]"


def table() -> str:
    """Return the rows of the table of settings, as reStructuredText."""
    rows = [("Setting", "Default", "Meaning")]
    rows += [(f"``{name}``", _on_the_page(value_of(Sections(), name)), MEANINGS[name]) for name in KINDS]
    return "".join(_row(*cells) for cells in rows)


def _row(name: str, default: str, meaning: str) -> str:
    meaning = _wrapped(meaning, "     - ", "       ")
    return f"   * - {name}\n     - {default}\n{meaning}\n"


def _on_the_page(default: Any) -> str:
    """Write a default as a cell of the table."""
    match default:
        case None:
            return "not set"
        case ():
            return "none"
        case bool():
            return f"``{str(default).lower()}``"
        case int():
            return str(default)
        case tuple():
            return ", ".join(f"``{item}``" for item in default)
        case _:
            return f"``{default}``"


def sample(header: str) -> str:
    """
    Return ``etc/default.toml``: every setting as a comment, below its meaning.

    :param header: the comment at the beginning of the file.
    """
    lines = [header.rstrip("\n")]
    group = ""
    for name in KINDS:
        section, _, key = name.rpartition(".")
        if section != group:
            group = section
            lines += ["", f"[{group}]"]
        default = value_of(Sections(), name)
        lines += [_wrapped(_plain(name), "# ", "# "), f"#{key} = {'' if default is None else _toml(default)}".rstrip()]
    return "\n".join(lines) + "\n"


def _plain(name: str) -> str:
    """Return the meaning of a setting as plain sentences; words that it may be set to are quoted as in TOML."""
    words = {*CHOICES.get(name, {}), "*", "null", "/"}
    text = re.sub(r" \[#[a-z]+\]_", "", MEANINGS[name])
    text = text.replace("; see `Settings without effect`_", "; accepted for configuration files of other servers")
    text = re.sub(r"`([^`]+\.rst) <[^>]+>`_", r"docs/\1", text)
    text = re.sub(r"``([^`]*)``", lambda match: f'"{match[1]}"' if match[1] in words else match[1], text)
    return f"{text[0].upper()}{text[1:]}."


def _toml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _wrapped(text: str, first: str, rest: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def generated() -> Iterator[tuple[Path, str]]:
    """Yield each generated file, with the text that it should have."""
    page = CONFIGURATION.read_text()
    before, begins, rest = page.partition(_TABLE_BEGINS)
    yield CONFIGURATION, before + begins + table() + _TABLE_ENDS + rest.partition(_TABLE_ENDS)[2]
    yield SAMPLE, sample(SAMPLE.read_text().partition("\n\n[")[0])


def main() -> None:
    """Write the files that differ."""
    for path, text in generated():
        if path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
