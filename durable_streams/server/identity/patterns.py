"""Patterns of names in rules and grants: parsing, substitution, and comparison of the sets of names that they match."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, TypeAlias, TypeVar

from ..errors import InvalidName
from ..protocol.names import RESERVED_SEGMENT, NameLimits, check_name
from ..protocol.patterns import ANY, ONE, PARTIAL_STAR, has_partial_star
from .claims import MAX_DEPTH, find_claim
from .principal import Principal

#: The maximum of a pattern; names have lower limits in the settings.
_LIMITS: Final = NameLimits(name_bytes=4096, segments=64)

_SUBJECT: Final = "{subject}"
_CLAIM: Final = "{claim."


class Star(Enum):
    """A wildcard segment of a pattern."""

    ONE = ONE
    ANY = ANY


class Substitution:
    """
    A segment that is a value of the principal: ``{subject}`` or ``{claim.PATH}``.

    :ivar text: the segment as it was written.
    :ivar path: the path of the claim; None for the subject.
    """

    __slots__ = ("path", "text")

    def __init__(self, text: str) -> None:
        """
        Parse a segment that begins with a brace.

        :raises InvalidName: it is no substitution.
        """
        self.text = text
        self.path: str | None = None
        if text == _SUBJECT:
            return
        self.path = text[len(_CLAIM) : -1]
        if not (text.startswith(_CLAIM) and text.endswith("}")) or not self.path or set(self.path) & {"{", "}"}:
            raise InvalidName(
                f"{text} is no substitution. Write {_SUBJECT}, or {{claim.PATH}} with the path of a claim, "
                "as a whole segment."
            )
        if self.path.count(".") > MAX_DEPTH:
            raise InvalidName(f"The path of a claim must not have more than {MAX_DEPTH} dots.")

    def value(self, principal: Principal) -> str | None:
        """Return the text that the segment must equal, or None if no segment matches."""
        value = principal.subject if self.path is None else find_claim(principal.claims, self.path)
        return value if isinstance(value, str) and value else None


#: One segment of a pattern. A text is compared as it is, whatever characters it has.
Part: TypeAlias = str | Star | Substitution
Parts: TypeAlias = tuple[Part, ...]

_P = TypeVar("_P", bound=Part)

#: A pattern without substitutions.
PlainParts: TypeAlias = tuple[str | Star, ...]

#: The pattern ``**``.
EVERYTHING: Final[Parts] = (Star.ANY,)

#: The names that ``**`` matches beside those of streams, for the operation ``subscribe``.
SUBSCRIPTIONS: Final[PlainParts] = (RESERVED_SEGMENT, "subscriptions", Star.ONE)


def parse_parts(text: str) -> Parts:
    """
    Parse a pattern of a rule. Slashes at its ends are removed, and runs of ``**`` joined.

    :raises InvalidName: the pattern breaks a rule of stream names, or a star or brace is no whole segment.
    """
    return _checked([_part(segment) for segment in _split(text.strip("/"))])


def parse_plain(text: str) -> PlainParts:
    """
    Parse a pattern as of subscriptions: as :func:`parse_parts` does, but braces are plain text.

    :raises InvalidName: the pattern breaks a rule of stream names, or a star is no whole segment.
    """
    return _checked([_plain_part(segment) for segment in text.strip("/").split("/")])


def literal_parts(name: str) -> PlainParts:
    """Return the parts of a pattern that matches exactly one name."""
    return tuple(name.split("/"))


def _split(text: str) -> list[str]:
    """Split a pattern at its slashes, except those inside of a substitution."""
    segments = []
    while True:
        end = text.find("}") + 1 if text.startswith("{") else 0
        inner, slash, rest = text[end:].partition("/")
        segments.append(text[:end] + inner)
        if not slash:
            return segments
        text = rest


def _checked(parts: Sequence[_P]) -> tuple[_P | Star, ...]:
    """
    Return the parts of a pattern with runs of ``**`` joined.

    :raises InvalidName: the pattern breaks a rule of stream names.
    """
    plain = [part if isinstance(part, str) else "x" for part in parts]
    if plain[0] == RESERVED_SEGMENT:
        plain[0] = "x"
    check_name("/".join(plain), _LIMITS)
    return joined(parts)


def _part(segment: str) -> Part:
    part = _plain_part(segment)
    if isinstance(part, str) and ("{" in segment or "}" in segment):
        return Substitution(segment)
    return part


def _plain_part(segment: str) -> str | Star:
    if segment == ONE:
        return Star.ONE
    if segment == ANY:
        return Star.ANY
    if has_partial_star(segment):
        raise InvalidName(PARTIAL_STAR)
    return segment


def joined(parts: Sequence[_P]) -> tuple[_P | Star, ...]:
    """Normalize each run of stars to its ``*`` segments and then at most one ``**``, which matches the same names."""
    found: list[_P | Star] = []
    many = False
    for part in parts:
        if part is Star.ANY:
            many = True
            continue
        if many and part is not Star.ONE:
            found.append(Star.ANY)
            many = False
        found.append(part)
    if many:
        found.append(Star.ANY)
    return tuple(found)


def substituted(parts: Parts, principal: Principal) -> PlainParts | None:
    """Return a pattern with the values of a principal as plain text, or None if it matches no name at all."""
    found: list[str | Star] = []
    for index, part in enumerate(parts):
        if isinstance(part, Substitution):
            value = part.value(principal)
            if value is None or "/" in value or (index == 0 and value == RESERVED_SEGMENT):
                return None
            found.append(value)
        else:
            found.append(part)
    return tuple(found)
