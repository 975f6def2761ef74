"""docs/signed-urls.rst: its commands work, and its functions sign as the server does."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
import urllib.error
import urllib.request
from typing import Final
from urllib.parse import urlsplit

from durable_streams.server.identity.signed_urls import SigningKey, sign
from tests.support.process_case import ProcessTestCase, wait_for
from tests.support.programs import program
from tests.support.signed_urls_page import EXAMPLE, PAGE, SignedUrlsPage

KEY: Final = SigningKey("k1", b"0123456789abcdef0123456789abcdef")


class PageTests(ProcessTestCase):
    def setUp(self) -> None:
        super().setUp()
        program("curl")
        self.page = SignedUrlsPage(self.folder / "page")

    def status(self, url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Return the status of an answer, and its body."""
        body = b"x" if method in ("POST", "PUT") else None
        asked = urllib.request.Request(url, body, headers | {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, str(refused.headers) + refused.read().decode()

    def test_every_command_of_the_page_works(self) -> None:
        page = self.page
        self.addCleanup(page.tear_down)
        page.set_up()
        self.assertEqual('["first"]', page.shell.run(page.read))
        page.shell.start(page.serve_application)
        wait_for(lambda: self.answers(page.application), "the application")
        url = json.loads(self.status(f"{page.application}/stream-url")[1])["url"]
        page.shell.run(page.append)
        self.assertEqual((200, '["first","second"]'), self.status(f"{url}&offset=-1"))
        secrets = [url, page.shell.run(f"{page.read} > /dev/null; echo $url").strip()]
        self.check_refusals(url)
        key_file = "--key-file config/signing-keys"
        [old_key] = json.loads(page.shell.run(f"durable-streams-server signing-key list --json {key_file}"))
        self.assertIn("signs and verifies", page.shell.run(page.rotate))
        self.assertEqual(200, self.status(url)[0])
        page.shell.run(f"durable-streams-server signing-key remove {old_key['id']} {key_file}")
        wait_for(lambda: self.status(url)[0] == 401, "the removal of the key")
        self.check_secrets(secrets)

    def answers(self, url: str) -> bool:
        try:
            return self.status(url)[0] == 200
        except OSError:
            return False

    def check_refusals(self, url: str) -> None:
        """Check that a URL opens nothing but reads of its stream, and that no answer has the signature."""
        signature = url.partition("ds_sig=")[2].partition("&")[0]
        other = url.replace("/news/today?", "/news/tomorrow?")
        for expected, method, target in (
            (403, "POST", url),
            (403, "PUT", url),
            (403, "DELETE", url),
            (401, "GET", other),
            (401, "PUT", other),
            (401, "GET", url.replace("ds_op=read", "ds_op=append")),
            (401, "GET", url.replace("ds_subject=alice", "ds_subject=bob")),
            (401, "GET", f"{url}&ds_op=append"),
            (401, "GET", url.partition("?")[0]),
            (400, "GET", f"{url}&offset=nonsense"),
        ):
            status, answer = self.status(target, method)
            self.assertEqual(expected, status, (method, target))
            self.assertNotIn(signature, answer)

    def check_secrets(self, urls: list[str]) -> None:
        """Check that the server has recorded the requests, and none of the signatures and secrets."""
        recorded = self.page.recorded()
        self.assertIn("news/today", recorded)
        self.assertIn('"subject":"alice"', recorded)
        for url in urls:
            signature = url.partition("ds_sig=")[2].partition("&")[0]
            self.assertEqual(43, len(signature))
            self.assertNotIn(signature, recorded)
        for line in (self.page.place / "config" / "signing-keys").read_text().splitlines():
            if not line.startswith("#"):
                self.assertNotIn(line.split()[1], recorded)
        self.assertNotIn((self.page.place / "backend.token").read_text().strip(), recorded)
        self.assertNotIn("Traceback", recorded)


class SigningTests(ProcessTestCase):
    """The functions of the page, beside the server's."""

    def setUp(self) -> None:
        super().setUp()
        self.keys = self.folder / "keys"
        self.keys.write_text(f"# ours\n{KEY.id} {KEY.secret.decode()}\n")

    NAMES: Final = [("news/today", ""), ("a/b c/é", "alice"), ("x~y", "ä b&c=d")]

    def check(self, urls: list[str]) -> None:
        for url, (name, subject) in zip(urls, self.NAMES, strict=True):
            parts = urlsplit(url)
            path = parts.path.removeprefix("/v1/stream/").encode()
            signed = sign(KEY, "append,create", path, 1_767_225_600, subject)
            expected = dict(pair.split("=") for pair in signed.split("&"))
            found = dict(pair.split("=") for pair in parts.query.split("&"))
            self.assertEqual(expected["ds_sig"], found["ds_sig"], (name, subject))
            self.assertEqual(sorted(expected), sorted(found))

    def test_the_python_of_the_example_signs_as_the_server_does(self) -> None:
        source = PAGE.parent.parent / EXAMPLE / "backend.py"
        calls = ", ".join(
            f"backend.signed_url({str(self.keys)!r}, {name!r}, 'append,create', 1767225600, {subject!r})"
            for name, subject in self.NAMES
        )
        path = str(source.parent)
        code = f"import sys, json; sys.path.insert(0, {path!r}); import backend; print(json.dumps([{calls}]))"
        ended = subprocess.run(["python3", "-B", "-c", code], capture_output=True, text=True, timeout=60, check=True)
        self.check(json.loads(ended.stdout))

    def test_the_javascript_of_the_page_signs_as_the_server_does(self) -> None:
        node = program("node")
        found = re.search(r"\.\. code-block:: javascript\n\n((?:    .*\n|\n)+)", PAGE.read_text())
        assert found is not None
        calls = ", ".join(
            f"signedUrl('http://localhost/v1/stream', {json.dumps(name)}, 'append,create', 1767225600, "
            f"{json.dumps(KEY.id)}, {json.dumps(KEY.secret.decode())}, {json.dumps(subject)})"
            for name, subject in self.NAMES
        )
        script = self.folder / "sign.mjs"
        script.write_text(f"{textwrap.dedent(found[1])}\nconsole.log(JSON.stringify([{calls}]))\n")
        ended = subprocess.run([node, script], capture_output=True, text=True, timeout=60, check=True)
        self.check(json.loads(ended.stdout))
