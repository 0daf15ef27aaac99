"""What arrives: an HTTP server that plays webhook, Slack and PagerDuty, and an SMTP server, for Alertmanager to talk to."""

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Arrival(NamedTuple):
    """One message: when, to which path ("/hook/page", "/slack", "/pagerduty", "mail"), and what."""

    at_s: float
    path: str
    content: Any


class Inbox:
    """Keeps everything that arrives."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.http_port = 0
        self.smtp_port = 0

    def keep(self, path: str, content: Any) -> None:
        self.arrivals.append(Arrival(time.time(), path, content))

    def to(self, path: str) -> list[Arrival]:
        """Return what arrived at a path, firing alerts only where it says."""
        found = [each for each in list(self.arrivals) if each.path == path]
        return [
            each for each in found if not isinstance(each.content, dict) or each.content.get("status") != "resolved"
        ]

    def groups(self, receiver: str) -> set[tuple[str, str]]:
        """Return the (alert, model) of each group that a receiver was told of."""
        labels = [each.content["groupLabels"] for each in self.to(f"/hook/{receiver}")]
        return {(each["alertname"], each.get("model", "")) for each in labels}


@contextmanager
def inbox() -> Iterator[Inbox]:
    """Open an inbox and close it."""
    kept = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kept.keep(self.path, json.loads(body))
            self.send_response(202 if self.path.startswith("/pagerduty") else 200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    class Mail(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            def say(text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

            say("220 inbox")
            for line in self.rfile:
                word = line[:4].upper()
                if word == b"DATA":
                    say("354 go on")
                    lines = []
                    for text in self.rfile:
                        if text == b".\r\n":
                            break
                        lines.append(text)
                    kept.keep("mail", b"".join(lines).decode(errors="replace"))
                say("221 bye" if word == b"QUIT" else "250 ok")
                if word == b"QUIT":
                    return

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    post = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)
    web.daemon_threads = post.daemon_threads = True
    kept.http_port, kept.smtp_port = web.server_address[1], post.server_address[1]
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in (web, post)]
    for thread in threads:
        thread.start()
    try:
        yield kept
    finally:
        for server in (web, post):
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
