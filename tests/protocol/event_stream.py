"""A reader of event streams, by the rules of the HTML standard ("interpreting an event stream")."""

from __future__ import annotations

import re


def parse_events(stream: bytes) -> list[tuple[str, str]]:
    """Return the type and data of each event that a browser would dispatch for a stream."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = re.split("\r\n|\n|\r", text)
    # What follows the last line end is no line; an event that no blank line ends is not dispatched.
    events: list[tuple[str, str]] = []
    data = kind = ""
    for line in lines[:-1]:
        if not line:
            if data:
                events.append((kind or "message", data.removesuffix("\n")))
            data = kind = ""
            continue
        field, colon, value = line.partition(":")
        if colon:
            value = value.removeprefix(" ")
        if field == "data":
            data += value + "\n"
        elif field == "event":
            kind = value
    return events
