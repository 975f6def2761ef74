"""Contract: creation of streams."""

from __future__ import annotations

from zope.interface.verify import verifyObject

from ...errors import (
    InvalidJson,
    StreamClosed,
    StreamExists,
)
from ...interfaces import IStorage
from ...model import (
    FOREVER,
    START,
    Created,
    Lifetime,
    Offset,
    StreamConfig,
)
from ..values import JSON, OCTETS, T0, TEXT
from .base import Contract


class CreateContract(Contract):
    """Tests of creating streams (PROTOCOL section 5.1)."""

    async def test_interface(self) -> None:
        self.assertTrue(verifyObject(IStorage, self.storage))

    async def test_a_new_stream_is_open_and_empty(self) -> None:
        created = await self.create()
        self.assertEqual((created.tail, created.closed, created.new), (0, False, True))
        chunk = await self.read()
        self.assertEqual((chunk.start, chunk.data, chunk.tail, chunk.closed), (0, b"", 0, False))

    async def test_the_initial_body_can_be_read_at_once(self) -> None:
        created = await self.create(body=b"hello")
        self.assertEqual((created.tail, created.closed, created.new), (5, False, True))
        self.assertEqual(await self.content(), b"hello")

    async def test_the_initial_body_is_one_append(self) -> None:
        await self.create(body=b"hello")
        await self.append(data=b"world")
        await self.assert_reads("a", [b"hello", b"world"])

    async def test_a_stream_can_be_created_closed_and_empty(self) -> None:
        created = await self.create(config=StreamConfig("text/plain", closed=True))
        self.assertEqual((created.tail, created.closed, created.new), (0, True, True))
        self.assertTrue((await self.read()).closed)
        await self.refused(StreamClosed, self.append(data=b"more"))

    async def test_a_stream_can_be_created_closed_with_all_its_content(self) -> None:
        created = await self.create(config=StreamConfig("text/plain", closed=True), body=b"all of it")
        self.assertEqual((created.tail, created.closed, created.new), (9, True, True))
        chunk = await self.read()
        self.assertEqual((chunk.data, chunk.closed), (b"all of it", True))
        await self.refused(StreamClosed, self.append(data=b"more"))

    async def test_the_content_type_is_kept_as_it_came(self) -> None:
        facts = (await self.create(config=StreamConfig("Text/Plain; Charset=UTF-8"))).facts
        self.assertEqual(
            (facts.name, facts.content_type, facts.media_type, facts.json),
            ("a", "Text/Plain; Charset=UTF-8", "text/plain", False),
        )

    async def test_a_stream_without_content_type_is_octet_stream(self) -> None:
        facts = (await self.create(config=OCTETS)).facts
        self.assertEqual(
            (facts.content_type, facts.media_type, facts.json),
            ("application/octet-stream", "application/octet-stream", False),
        )

    async def test_json_mode_depends_on_the_media_type_without_parameters(self) -> None:
        with_parameters = await self.create("a", StreamConfig("Application/JSON; charset=utf-8"))
        with_suffix = await self.create("b", StreamConfig("application/ld+json"))
        self.assertEqual((with_parameters.facts.json, with_suffix.facts.json), (True, False))

    async def test_all_operations_return_the_same_facts(self) -> None:
        facts = (await self.create(body=b"x")).facts
        self.assertEqual((await self.append(data=b"y")).facts, facts)
        self.assertEqual((await self.read()).facts, facts)
        self.assertEqual((await self.status()).facts, facts)
        self.assertEqual((await self.create()).facts, facts)

    async def test_an_incarnation_fits_into_an_offset(self) -> None:
        facts = (await self.create()).facts
        self.assertGreater(facts.incarnation, START.incarnation)
        self.assertEqual(len(str(Offset(facts.incarnation, 0))), 33)

    async def test_no_two_streams_have_the_same_id(self) -> None:
        ids = {(await self.create(name)).facts.id for name in ("a", "b", "c", "d")}
        ids.add((await self.fork("e", "a")).facts.id)
        self.assertEqual(len(ids), 5)

    async def test_a_json_body_becomes_messages(self) -> None:
        await self.create(config=JSON, body=b' {"a": 1} ')
        self.assertEqual(await self.content(), b'{"a": 1},')

    async def test_a_json_array_is_flattened_by_one_level(self) -> None:
        await self.create(config=JSON, body=b"[[1],[2,3]]")
        self.assertEqual(await self.content(), b"[1],[2,3],")

    async def test_an_empty_json_array_makes_an_empty_stream(self) -> None:
        created = await self.create(config=JSON, body=b"[]")
        self.assertEqual((created.tail, created.new), (0, True))
        await self.append(data=b"1,", media_type="application/json")
        await self.assert_reads("a", [b"1,"])

    async def test_a_json_stream_is_not_created_if_the_body_is_not_json(self) -> None:
        await self.refused(InvalidJson, self.create(config=JSON, body=b'{"a":'))
        await self.assert_absent()
        self.assertTrue((await self.create()).new)

    async def test_json_in_a_stream_of_another_type_is_bytes(self) -> None:
        await self.create(body=b"[1]")
        self.assertEqual(await self.content(), b"[1]")

    async def test_creating_an_existing_stream_returns_it(self) -> None:
        first = await self.create(body=b"hello")
        self.later(10)
        again = await self.create()
        self.assertEqual(again, Created(first.facts, 5, False, new=False))

    async def test_creating_an_existing_stream_returns_its_present_tail(self) -> None:
        await self.create(body=b"hello")
        await self.append(data=b" world")
        self.assertEqual((await self.create()).tail, 11)

    async def test_the_body_is_ignored_if_the_stream_exists(self) -> None:
        await self.create(config=JSON, body=b"1")
        before = await self.everything()
        again = await self.create(config=JSON, body=b"{not json")
        self.assertFalse(again.new)
        self.assertEqual(await self.everything(), before)

    async def test_content_types_are_compared_without_case_and_parameters(self) -> None:
        await self.create(config=StreamConfig("text/plain; charset=utf-8"))
        self.assertFalse((await self.create(config=StreamConfig("TEXT/PLAIN"))).new)

    async def test_no_content_type_equals_octet_stream(self) -> None:
        await self.create(config=OCTETS)
        self.assertFalse((await self.create(config=OCTETS)).new)
        self.assertFalse((await self.create(config=StreamConfig("application/octet-stream"))).new)

    async def test_creating_an_existing_stream_with_its_lifetime_returns_it(self) -> None:
        for name, lifetime in (("a", Lifetime(ttl=60)), ("b", Lifetime(expires_at=T0 + 60))):
            config = StreamConfig("text/plain", lifetime)
            await self.create(name, config)
            self.assertFalse((await self.create(name, config)).new)

    async def test_creating_a_stream_with_another_content_type_is_a_conflict(self) -> None:
        await self.create(body=b"x")
        await self.refused(StreamExists, self.create(config=JSON, body=b"1"))
        await self.refused(StreamExists, self.create(config=OCTETS))

    async def test_creating_a_stream_with_another_lifetime_is_a_conflict(self) -> None:
        lifetimes = [FOREVER, Lifetime(ttl=60), Lifetime(ttl=61), Lifetime(expires_at=T0 + 60)]
        lifetimes.append(Lifetime(expires_at=T0 + 61))
        for number, made_with in enumerate(lifetimes):
            name = f"stream-{number}"
            await self.create(name, StreamConfig("text/plain", made_with))
            for asked in lifetimes:
                if asked != made_with:
                    await self.refused(StreamExists, self.create(name, StreamConfig("text/plain", asked)))

    async def test_creating_a_stream_with_another_closure_is_a_conflict(self) -> None:
        closed = StreamConfig("text/plain", closed=True)
        await self.create("a", TEXT)
        await self.create("b", closed)
        await self.refused(StreamExists, self.create("a", closed))
        await self.refused(StreamExists, self.create("b", TEXT))

    async def test_closure_is_compared_with_the_present_state(self) -> None:
        await self.create()
        await self.append(close=True)
        await self.refused(StreamExists, self.create(config=TEXT))
        again = await self.create(config=StreamConfig("text/plain", closed=True))
        self.assertEqual((again.new, again.closed), (False, True))

    async def test_creating_a_fork_under_the_name_of_a_plain_stream_is_a_conflict(self) -> None:
        await self.create("source")
        await self.create("a")
        await self.refused(StreamExists, self.fork("a", "source"))

    async def test_names_that_differ_in_one_character_are_different_streams(self) -> None:
        names = [
            "a",
            "A",
            "a/b",
            "a b",
            "a.b",
            "\u00e4",
            "a\u0308",
            "\u2603/\U0001f600",
            "%61",
            "con",
            "~",
            'a:b?*|<>"\\',
        ]
        names += ["x" * 1023, "x" * 1024, "/".join(["\u2603" * 40] * 8)]
        for name in names:
            self.assertTrue((await self.create(name, body=name.encode())).new, name)
        for name in names:
            self.assertEqual(await self.content(name), name.encode())

    async def test_operations_work_after_the_time_went_back(self) -> None:
        await self.create(config=StreamConfig("text/plain", Lifetime(ttl=60)), body=b"x")
        self.later(-3600)
        self.assertEqual((await self.append(data=b"y")).tail, 2)
        self.assertEqual(await self.content(), b"xy")
