"""Make replies to the same request comparable: blank out what no two runs share, keep every other byte."""

from __future__ import annotations

import re
from collections import defaultdict

from engine_wire import Reply

# Seconds of the clock, and ids that vLLM draws at random even when the request names itself.
_VARIABLE = (
    (re.compile(rb'"(created|created_at)":\d+'), rb'"\1":0'),
    (re.compile(rb"chatcmpl-tool-[0-9a-f]+"), b"chatcmpl-tool-0"),
    (re.compile(rb"modelperm-[0-9a-f]+"), b"modelperm-0"),
    (re.compile(rb'"(id|item_id)":"(msg|resp|rs|fc)_[0-9a-f-]+"'), rb'"\1":"\2_0"'),
)
_INDEX = re.compile(rb'"choices":\[\{"index":(\d+)')
# How the body is framed is between neighbours (RFC 9110 section 7.6.1); the date is the second the reply left.
_NEIGHBOURLY_HEADERS = {"date", "connection", "keep-alive", "transfer-encoding"}


Head = tuple[int, str, list[tuple[str, str]]]
Body = bytes | dict[bytes, list[bytes]]


def comparable_body(reply: Reply, choices: int) -> Body:
    """The body without what varies from run to run.

    Events of several choices interleave differently in every run, so for them: the events of each choice, in order
    (under the empty key those of none, such as the last usage and [DONE]).
    """
    if choices == 1 or "event-stream" not in (reply.header("content-type") or ""):
        return normalised(reply.body)
    by_choice: dict[bytes, list[bytes]] = defaultdict(list)
    for event in reply.events:
        found = _INDEX.search(event)
        by_choice[found[1] if found else b""].append(normalised(event))
    return dict(by_choice)


def normalised(body: bytes) -> bytes:
    """`body` with clock readings and random ids replaced by constants."""
    for pattern, constant in _VARIABLE:
        body = pattern.sub(constant, body)
    return body


def comparable_head(reply: Reply) -> Head:
    """Status, reason and headers, apart from those that each hop makes for itself."""
    headers = [(name.lower(), value) for name, value in reply.headers if name.lower() not in _NEIGHBOURLY_HEADERS]
    return reply.status, reply.reason, sorted(headers)
