"""What this distribution adds to twistd. Everything is imported only when it is used."""

from twisted.application.service import ServiceMaker

durable_streams = ServiceMaker(
    "Durable Streams",
    "durable_streams.server.tap",
    "A Durable Streams server: append-only streams over HTTP.",
    "durable-streams",
)
