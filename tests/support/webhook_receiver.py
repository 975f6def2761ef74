"""A receiver of webhooks in threads of the test's process."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebhookReceiver:
    """
    An HTTP server that answers each POST, in a thread for each connection.

    :param receive: returns the status and the body of the answer to a body.
    :param tls: the context of a receiver over TLS.
    :ivar url: the address for a subscription.
    """

    def __init__(self, receive: Callable[[bytes], tuple[int, bytes]], tls: ssl.SSLContext | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, answer = receive(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def handle_one_request(self) -> None:
                # The sender may be killed, or may close the connection while an answer is awaited.
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    super().handle_one_request()

            def log_message(self, *arguments: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            # The handshake is made in the thread of the connection, at its first read.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
