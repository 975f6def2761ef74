from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InvalidRequest
from durable_streams.server.protocol.content import DEFAULT_TYPE, JSON_TYPE, is_text, media_type

from .samples import examples

_words = st.text("!#$%&'*+.^_`|~0123456789ABCXYZabcxyz-", min_size=1, max_size=8)
_parameters = st.lists(
    st.builds("{};{}{}={}".format, st.sampled_from(["", " ", "\t"]), st.sampled_from(["", " "]), _words, _words),
    max_size=3,
).map("".join)


class MediaTypeTests(SynchronousTestCase):
    def test_media_types_are_compared_without_case_and_parameters(self) -> None:
        for text, media in (
            ("application/json", "application/json"),
            ("Application/JSON", "application/json"),
            ("application/json; charset=utf-8", "application/json"),
            ("application/json ;charset=utf-8", "application/json"),
            ("application/json;", "application/json"),
            ('multipart/mixed; boundary="a;b/c"', "multipart/mixed"),
            ("application/vnd.api+json", "application/vnd.api+json"),
        ):
            self.assertEqual(media, media_type(text))

    @examples(200)
    @given(_words, _words, _parameters)
    def test_parameters_are_removed_from_any_media_type(self, main: str, sub: str, parameters: str) -> None:
        self.assertEqual(f"{main}/{sub}".lower(), media_type(f"{main}/{sub}{parameters}"))

    def test_a_malformed_media_type_is_rejected(self) -> None:
        for text in (
            "",
            " ",
            "json",
            "/json",
            "application/",
            "application//json",
            "application/json/x",
            "application /json",
            "application/ json",
            " application/json",
            "application/json x",
            "application/json, text/plain",
            "application/json\n",
            "application/json;\r\nX: y",
            "application/js\u00f6n",
        ):
            error = self.assertRaises(InvalidRequest, media_type, text)
            self.assertIn("Content-Type", str(error))

    @examples(200)
    @given(st.text(max_size=20))
    def test_any_text_is_a_lower_case_media_type_or_rejected(self, text: str) -> None:
        try:
            media = media_type(text)
        except InvalidRequest:
            return
        self.assertEqual(media.lower(), media)
        self.assertEqual(media, media_type(media))


class TextTests(SynchronousTestCase):
    def test_text_and_json_are_sent_as_text(self) -> None:
        for media in (JSON_TYPE, "text/plain", "text/markdown", "text/html"):
            self.assertTrue(is_text(media))

    def test_other_types_are_sent_in_base64(self) -> None:
        for media in (
            DEFAULT_TYPE,
            "application/ndjson",
            "application/vnd.api+json",
            "application/xml",
            "textual/plain",
        ):
            self.assertFalse(is_text(media))
