"""A frame of the live page, as the collector sends it: three tenants, a stream each, a GPU and a budget."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def used(label: str, name: str, tokens: float, **more: Any) -> dict[str, Any]:
    return {
        label: name,
        "requests": 1.5,
        "failed": 0.0,
        "tokens": tokens,
        "ttft_p99": 0.25,
        "requests_total": 12.0,
        "tokens_total": 34567.0,
        "gpu_dollars_total": 1.25,
        "price_dollars_total": None,
        **more,
    }


def stream(tenant: str, age_s: float, rate: float | None) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "model": "qwen",
        "stream": True,
        "age_s": age_s,
        "ttft_s": None if rate is None else 0.1,
        "prompt": 100,
        "tokens": 50,
        "rate": rate,
    }


def frame() -> dict[str, Any]:
    return {
        "unix_s": 1_795_000_000.0,
        "window_s": 10.0,
        "health": {"version": "0.1.0", "upstream": "127.0.0.1:8000", "faults": []},
        "totals": {
            "requests": 1234.0,
            "failed": 2.0,
            "prompt_tokens": 99_000.0,
            "completion_tokens": 1_500_000.0,
            "gpu_dollars": 12.5,
            "price_dollars": 3.25,
            "idle_dollars": 0.125,
            "joules": 0.0,
        },
        "now": {
            "requests": 12.25,
            "failed": 0.0,
            "prompt_tokens": 20_000.0,
            "completion_tokens": 950.0,
            "cost": 3.5,
            "idle_cost": 0.5,
            "ttft_p50": 0.12,
            "ttft_p99": 1.5,
            "gap_p50": 0.01,
            "gap_p99": 0.05,
            "in_flight": 3.0,
            "waiting": None,
            "kv_cache": 0.5,
            "gpu_utilization": 0.75,
            "gpu_watts": 412.0,
        },
        "streams": [stream("acme", 30.0, 20.0), stream("globex", 20.0, None), stream("hooli", 10.0, 40.0)],
        "running": 3,
        "tenants": [used("tenant", "acme", 500.0), used("tenant", "globex", 900.0), used("tenant", "hooli", 10.0)],
        "tenant_count": 3,
        "models": [used("model", "qwen", 1410.0)],
        "budgets": [
            {
                "budget": "daily",
                "account": "hooli",
                "unit": "dollars",
                "limit": 5.0,
                "spent": 4.5,
                "forecast": [0.9, 1.4, 2.0],
                "gone_in_s": 5400.0,
            }
        ],
        "gpus": [
            {
                "gpu": "0",
                "model": "H100",
                "up": 1.0,
                "utilization": 0.75,
                "memory_used": 40 * 2.0**30,
                "memory_total": 80 * 2.0**30,
                "watts": 412.0,
                "watts_limit": 700.0,
                "celsius": 61.0,
            }
        ],
        "signals": [{"tenant": "hooli", "kind": "retry_storm", "count": 2.0}],
        "unhappy": [
            {
                "unix_s": 1_795_000_000.0,
                "tenant": "hooli",
                "model": "qwen",
                "outcome": "rejected",
                "error": "over_budget",
                "status": 429,
                "duration_s": 0.002,
            }
        ],
    }


class _Live(BaseHTTPRequestHandler):
    """Answers as the server's `replies` say, by path: a status and a body."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append(self.path)
        status, body = server.replies.get(self.path, (404, b"there is no such file\n"))
        if server.token and self.headers.get("authorization") != f"Bearer {server.token}":
            status, body = 401, b"a token is needed\n"
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def serving(frame: dict[str, Any]) -> Iterator[Any]:
    """Serve `frame` as an admin port does. What is served is in `replies`, what was asked for in `asked`; a `token` is wanted."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Live)
    server.daemon_threads = True
    server.block_on_close = False
    server.asked = []
    server.token = ""
    server.replies = {"/live/frame": (200, json.dumps(frame).encode())}
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
