"""One request, as the anomaly tests need it."""

from collections.abc import Callable

import pytest

from inferwatch.record import Outcome, RequestRecord

NS_PER_S = 1_000_000_000
WALL_S = 1_760_000_250.0  # the middle of five minutes


@pytest.fixture(name="request_at")
def _request_at() -> Callable[..., RequestRecord]:
    """Make a record that arrives so many seconds after WALL_S."""

    def request_at(at_s: float, **fields: object) -> RequestRecord:
        known: dict[str, object] = {
            "request_id": f"r{at_s}",
            "wall_ns": int((WALL_S + at_s) * NS_PER_S),
            "tenant": "acme",
            "model": "m",
            "operation": "chat",
            "route": "/v1/chat/completions",
            "method": "POST",
            "stream": True,
            "outcome": Outcome.OK,
            "status": 200,
            "prompt_tokens": 500,
            "completion_tokens": 100,
            "duration_s": 1.0,
            "request_bytes": 2000,
        }
        return RequestRecord(**(known | fields))  # type: ignore[arg-type]

    return request_at
