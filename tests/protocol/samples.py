"""Values that several tests of the rules begin with, and JSON to draw from."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from durable_streams.server.model import StreamFacts
from durable_streams.server.protocol.content import JSON_TYPE, media_type


def examples(count: int) -> settings:
    """Try a property on so many examples, however slow the machine is at the moment."""
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def facts(content_type: str = "text/plain", incarnation: int = 1_700_000_000_000_000) -> StreamFacts:
    """Make the facts of a stream."""
    media = media_type(content_type)
    return StreamFacts("room/1", incarnation + 7, incarnation, content_type, media, media == JSON_TYPE)


whitespace = st.sampled_from(["", "", " ", "\n", "\r\n\t", "  "])

#: Numbers as programs write them, of which a float, and an integer of 64 bits, would keep few.
number_texts = st.from_regex(r"-?(?:0|[1-9][0-9]{0,25})(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,4})?", fullmatch=True)

#: Strings, plain and escaped, halves of surrogate pairs among the latter.
string_texts = st.one_of(
    st.text(max_size=12).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.text(st.characters(codec=None), max_size=12).map(json.dumps),
    st.sampled_from([r'"\ud83d"', r'"\udc00,\ud83d]"', r'"\\"', r'"\""', r'"\\\""', '"[1,{"', '"a/\\/b"', '"\x7f"']),
)


def _joined(parts: list[tuple[str, str, str]]) -> str:
    return ",".join(f"{before}{part}{after}" for before, part, after in parts)


def _containers(elements: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    spaced = st.tuples(whitespace, elements, whitespace)
    members = st.tuples(
        whitespace, st.builds(lambda key, gap, value: f"{key}{gap}:{value}", string_texts, whitespace, elements)
    )
    return st.one_of(
        st.lists(spaced, max_size=3).map(lambda parts: f"[{_joined(parts)}]"),
        st.lists(st.tuples(members, whitespace), max_size=3).map(
            lambda parts: "{" + _joined([(before, member, after) for (before, member), after in parts]) + "}"
        ),
    )


scalars = st.one_of(st.sampled_from(["null", "true", "false"]), number_texts, string_texts)

#: JSON values as texts, with whitespace wherever it may be, duplicate keys and all.
json_texts = st.recursive(scalars, _containers, max_leaves=6)

#: Values that are no arrays, so that a body of one is a message.
message_texts = json_texts.filter(lambda text: not text.startswith("["))


@st.composite
def json_arrays(draw: st.DrawFn, min_size: int = 1, max_size: int = 4) -> tuple[bytes, list[bytes]]:
    """Draw an array with whitespace around everything, and its elements, each as it stands in it."""
    elements = draw(st.lists(json_texts, min_size=min_size, max_size=max_size))
    spaced = [(draw(whitespace), element, draw(whitespace)) for element in elements]
    text = f"{draw(whitespace)}[{_joined(spaced) or draw(whitespace)}]{draw(whitespace)}"
    return text.encode(), [element.encode() for element in elements]
