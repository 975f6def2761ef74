"""Each refusal for a limit names the setting, on each front."""

from __future__ import annotations

from tests.support.cases import TEXT, FrontTestCase, each_way
from tests.support.fronts import BASE, settings_with


@each_way
class LimitTests(FrontTestCase):
    settings = settings_with(
        max_total_bytes=150,
        max_stream_bytes=100,
        max_streams=2,
        max_metadata_bytes=2_500,
        max_request_body_bytes=1_000,
        max_stream_name_bytes=600,
        max_stream_name_segments=3,
        max_header_bytes=2_000,
        max_target_bytes=1_000,
    )

    def test_each_refusal_for_a_limit_names_its_setting(self) -> None:
        self.assertEqual(self.front.ask("PUT", BASE + "a", TEXT, b"x" * 90).status, 201)
        long_headers = {"X-Long": "x" * 2_000}
        metadata = TEXT | {"Stream-Seq": "x" * 1_000}
        for method, path, headers, body, status, setting in (
            ("POST", "a", TEXT, b"x" * 1_001, 413, "max_request_body_bytes"),
            ("POST", "a", TEXT, b"x" * 11, 413, "max_stream_bytes"),
            ("PUT", "b", TEXT, b"x" * 61, 413, "max_total_bytes"),
            ("GET", "a?" + "x" * 1_000, {}, b"", 414, "max_target_bytes"),
            ("GET", "a", long_headers, b"", 431, "max_header_bytes"),
            ("GET", "x" * 601, {}, b"", 400, "max_stream_name_bytes"),
            ("GET", "a/b/c/d", {}, b"", 400, "max_stream_name_segments"),
            ("POST", "a", metadata, b"x", 204, None),
            ("PUT", "b", TEXT, b"x", 201, None),
            ("POST", "b", metadata, b"x", 204, None),
            ("PUT", "c", TEXT, b"x", 507, "max_streams"),
            (
                "POST",
                "b",
                TEXT | {"Producer-Id": "p" * 900, "Producer-Epoch": "0", "Producer-Seq": "0"},
                b"x",
                507,
                "max_metadata_bytes",
            ),
        ):
            reply = self.front.ask(method, BASE + path, headers, body)
            self.assertEqual(reply.status, status, setting)
            if setting is not None:
                self.assertIn(f"limits.{setting}", reply.json()["detail"])
