"""The rules about who may do what: the grammar of a line, and its value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from ..errors import InvalidName
from .claims import MAX_DEPTH
from .conditions import ANONYMOUS, AUTHENTICATED, CLAIM, GROUP, KIND, SUBJECT, Condition, Conditions
from .operations import ADMIN, ALL, READ, expand
from .patterns import EVERYTHING, Parts, Substitution, parse_parts
from .principal import NOBODY

#: The maximum of rules in a list or file.
MAX_RULES: Final = 10_000

#: The maximum of different claims in all rules together: a decision may have to look up each.
MAX_CLAIMS: Final = 256

#: The maximum length of a line, in characters.
MAX_LINE: Final = 4096

_GRAMMAR: Final = "Write: allow|deny WHO OPERATIONS NAME [NAME ...] [cache:public]."
_WHO: Final = "anyone, authenticated, anonymous, subject:S, group:G, claim:PATH=VALUE or kind:K"
_ANYONE: Final = "anyone"
_CACHE: Final = "cache:"
_PUBLIC: Final = "cache:public"
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f]")


class RuleError(ValueError):
    """
    A rule cannot be read.

    :ivar source: the setting or the file that has it.
    :ivar line: its number in the list or the file, from 1.
    :ivar sentence: what is wrong, and what to write.
    """

    def __init__(self, source: str, line: int, sentence: str) -> None:
        super().__init__(f"{source} {line}: {sentence}")
        self.source = source
        self.line = line
        self.sentence = sentence


class Rule(Struct, frozen=True):
    """
    One rule.

    :ivar allow: whether it allows or denies.
    :ivar conditions: what must hold for the principal, all of it.
    :ivar operations: the operations that it is about; ``head`` too if it has ``read``.
    :ivar names: the patterns of the names that it is about. Empty for a rule about ``admin`` alone.
    :ivar public: whether shared caches may keep what it allows to read.
    :ivar where: the source and number of its line, as in ``auth.rules 3``.
    :ivar text: the line.
    """

    allow: bool
    conditions: Conditions
    operations: frozenset[str]
    names: tuple[Parts, ...]
    public: bool
    where: str
    text: str


class _Word(Struct, frozen=True):
    """
    One word of a line.

    :ivar text: the word without its quotes.
    :ivar pieces: the text, split at each & outside of quotes.
    :ivar quoted: whether it begins with a quote.
    """

    text: str
    pieces: tuple[str, ...]
    quoted: bool


def parse_rule(line: str, where: str) -> Rule | None:
    """
    Parse a line. Return None for an empty one or a comment.

    :param where: the source and number of the line, for the audit log.
    :raises ValueError: the line is no rule; the message says what to write.
    """
    line = line.rstrip("\r\n")
    if len(line) > MAX_LINE:
        raise ValueError(f"A rule must not be longer than {MAX_LINE} characters. Write it as several rules.")
    if _CONTROL.search(line) or not _is_encodable(line):
        raise ValueError("A rule must not have control characters, nor lone surrogates. Remove them.")
    words = list(_words(line))
    if not words:
        return None
    if words[0].text not in ("allow", "deny"):
        raise ValueError(f"A rule begins with allow or deny, not with {words[0].text!r}. {_GRAMMAR}")
    if len(words) < 3:
        raise ValueError(f"The rule has no {'WHO' if len(words) == 1 else 'OPERATIONS'}. {_GRAMMAR}")
    allow = words[0].text == "allow"
    operations = _operations(words[2].text)
    targets, options = _without_options(words[3:])
    public = bool(options)
    if public and not (allow and READ in operations):
        raise ValueError("cache:public needs an allow rule with read: it is about what shared caches may keep.")
    names = tuple(_pattern(word.text) for word in targets)
    _check_names(words[2].text, operations, names)
    return Rule(allow, _conditions(words[1]), operations, names, public, where, line.strip())


def claims_of(rule: Rule) -> set[str]:
    """Return the paths of the claims that a rule looks up."""
    found = {condition.path for condition in rule.conditions if condition.about == CLAIM}
    for parts in rule.names:
        found |= {part.path for part in parts if isinstance(part, Substitution) and part.path is not None}
    return found


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _words(line: str) -> Iterator[_Word]:
    """
    Split a line at blanks outside of double quotes, up to a word that begins with #.

    In quotes, a backslash stands before a quote or another backslash.
    """
    position = 0
    while True:
        while position < len(line) and line[position] in " \t":
            position += 1
        if position == len(line) or line[position] == "#":
            return
        start = position
        pieces = [""]
        while position < len(line) and line[position] not in " \t":
            if line[position] == '"':
                text, position = _quoted(line, position)
                pieces[-1] += text
            else:
                if line[position] == "&":
                    pieces.append("")
                else:
                    pieces[-1] += line[position]
                position += 1
        yield _Word("&".join(pieces), tuple(pieces), line[start] == '"')


def _quoted(line: str, position: int) -> tuple[str, int]:
    """Return the text in the quotes that open at a position, and the position after them."""
    text = ""
    position += 1
    while position < len(line):
        char = line[position]
        if char == '"':
            return text, position + 1
        if char == "\\" and line[position + 1 : position + 2] in ('"', "\\"):
            position += 1
            char = line[position]
        text += char
        position += 1
    raise ValueError('A double quote is not closed. Write " at the end of the value, and \\" for a quote inside of it.')


def _operations(text: str) -> frozenset[str]:
    names = text.split(",")
    if "" in names:
        raise ValueError("OPERATIONS has an empty item. Write them with commas and without blanks: create,append,read.")
    return expand(names)


def _without_options(words: list[_Word]) -> tuple[list[_Word], list[_Word]]:
    """Split what follows the operations into names and options."""
    options = [word for word in words if word.text.startswith(_CACHE) and not word.quoted]
    for word in options:
        if word.text != _PUBLIC:
            raise ValueError(f"There is no option {word.text}. Write {_PUBLIC}, or the name in double quotes.")
    return [word for word in words if word not in options], options


def _pattern(text: str) -> Parts:
    try:
        return parse_parts(text)
    except InvalidName as error:
        raise ValueError(f"NAME {text!r}: {error}") from None


def _check_names(written: str, operations: frozenset[str], names: tuple[Parts, ...]) -> None:
    if not names and operations != {ADMIN}:
        raise ValueError("The rule has no NAME. Write ** for all names; only admin alone needs none.")
    explicit = ADMIN in written.split(",")
    if explicit and names and EVERYTHING not in names:
        raise ValueError(
            "admin is about the whole server: write it in a rule without NAME, or with **, and the operations on "
            f"certain names in another. ({ALL} on certain names does not include it.)"
        )


def _conditions(word: _Word) -> Conditions:
    found: list[Condition] = []
    for piece in word.pieces:
        condition = _condition(piece)
        if condition is not None and condition not in found:
            found.append(condition)
    abouts = [condition.about for condition in found]
    if ANONYMOUS in abouts and len(found) > 1:
        raise ValueError("WHO never holds: requests without credentials have no subject, group, claim or other kind.")
    for about in (SUBJECT, KIND):
        if abouts.count(about) > 1:
            raise ValueError(f"WHO never holds: a principal has one {about}. Write a rule for each.")
    return tuple(found)


def _condition(text: str) -> Condition | None:
    """Parse one condition of WHO. Return None for anyone."""
    if text == _ANYONE:
        return None
    if text in (AUTHENTICATED, ANONYMOUS):
        return Condition(text)
    about, colon, value = text.partition(":")
    if not colon or about not in (SUBJECT, GROUP, CLAIM, KIND):
        raise ValueError(f"WHO is {text!r}. Write {_WHO}, joined by & if several must hold.")
    path = ""
    if about == CLAIM:
        path, equals, value = value.partition("=")
        if not equals or not path:
            raise ValueError(f"WHO is {text!r}. Write claim:PATH=VALUE, as in claim:tenant=acme or claim:org.id=5.")
        if path.count(".") > MAX_DEPTH:
            raise ValueError(f"The path of a claim must not have more than {MAX_DEPTH} dots.")
    if not value:
        raise ValueError(f"WHO is {text!r}, without a value. Write what the {about} must equal.")
    if (about, value) == (KIND, NOBODY):
        return Condition(ANONYMOUS)
    return Condition(about, value, path)
