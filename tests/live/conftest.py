"""A store with numbers in it, as a collector would have after some traffic."""

from collections.abc import Callable
from typing import Any

import pytest

from inferwatch_collectors import metrics as m
from inferwatch_collectors.metric_store import MetricStore

REQUEST = ("qwen", "acme", "chat")


class Traffic:
    """Counts like a recorder; each call is one request of `tenant`."""

    def __init__(self) -> None:
        self.store = MetricStore()

    def request(
        self,
        tenant: str = "acme",
        outcome: str = "ok",
        prompt: int = 10,
        completion: int = 5,
        ttft_s: float = 0.2,
        model: str = "qwen",
    ) -> None:
        labels = (model, tenant, "chat")
        self.store.counter(m.REQUESTS, (*labels, outcome)).add()
        for kind, tokens in (("prompt", prompt), ("completion", completion), ("cached", prompt)):
            self.store.counter(m.TOKENS, (*labels, kind)).add(tokens)
        self.store.histogram(m.TIME_TO_FIRST_TOKEN, labels).observe(ttft_s)
        self.store.histogram(m.INTER_TOKEN_LATENCY, labels).observe(0.02, completion)
        self.store.counter(m.COST_DOLLARS, (*labels, "gpu")).add(3 * m.COST_DOLLARS.scale)

    def gauge(self, metric: Any, value: float, *labels: str) -> None:
        self.store.gauge(metric, labels).set(value)


@pytest.fixture(name="traffic")
def _traffic() -> Traffic:
    return Traffic()


@pytest.fixture(name="open_exchange")
def _open_exchange() -> Callable[..., Any]:
    """Make an exchange that is under way: `reads` are (seconds after its arrival, tokens so far)."""
    from inferwatch.tap import Head, Open  # noqa: PLC0415
    from inferwatch_collectors.exchange import Exchange  # noqa: PLC0415

    def make(arrival_ns: int, *reads: tuple[float, int], tenant: str = "acme") -> Exchange:
        opened = Open(
            id=1,
            request_id="r",
            wall_ns=0,
            arrival_ns=arrival_ns,
            sent_ns=0,
            method="POST",
            path="/v1/chat/completions",
            tenant=tenant,
            model="qwen",
            stream=True,
            asked_usage=True,
            choices=1,
            headers={},
            body=b"{}",
            body_bytes=2,
        )
        exchange = Exchange(opened)
        exchange.head(Head(1, arrival_ns, 200, {"content-type": "text/event-stream"}))
        for after_s, tokens in reads:
            event = (
                b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],'
                b'"usage":{"prompt_tokens":7,"completion_tokens":%d}}\n\n' % tokens
            )
            exchange.read(arrival_ns + int(after_s * 1e9), event)
        return exchange

    return make
