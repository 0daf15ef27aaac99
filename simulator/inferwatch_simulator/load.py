"""A traffic generator: tenants and their users, talking to an engine or to a proxy before it.

Conversations arrive as a Poisson process, each draws a tenant, a user and a workload from the profile, and runs its
turns one after another. The generator is open-loop: it does not wait for a slow server, but it never has more than
`max_concurrent` conversations open; those that would exceed it are skipped and counted. Everything is drawn from one
seed; what is not repeatable is only how long the server takes.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import Any, NamedTuple, Protocol, TypeVar

import aiohttp
import msgspec

from inferwatch_simulator.profiles import PROFILES, Profile, Range, Tenant, Workload
from inferwatch_simulator.text import Dice, write

_TIMEOUT = aiohttp.ClientTimeout(total=600, sock_connect=10)
_OK = 200
_MAX_EVENT_BYTES = 2**20  # kept of a stream to look for its usage

SYSTEM_PROMPT = (
    "You are a careful assistant of {tenant}. Answer briefly, in the language of the question, and say so when you "
    "do not know. Never make up figures. When a table helps, use a table; when code helps, show code. "
    "Do not repeat the question. Do not apologise more than once."
)
# Users do write such things; what watches the traffic must not pass them on.
_PERSONAL = (
    " My e-mail is jane.roe@example.com.",
    " Call me back at +44 20 7946 0958.",
    " The card number is 4111 1111 1111 1111.",
    " I live at 12 Example Street, Springfield.",
)
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "read_file",
            "description": "Read a part of a file.",
            "parameters": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "first_line": {"type": "integer"}},
                "required": ["path"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Search the repository.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}, "kind": {"type": "string", "enum": ["text", "symbol"]}},
                "required": ["query"],
            },
        },
    },
]
_INVALID: tuple[dict[str, Any], ...] = (
    {"model": "no-such-model"},
    {"stream": False, "stream_options": {"include_usage": True}},
    {"temperature": -1},
    {"messages": None},
    {"max_tokens": 0},
)


class Counts(msgspec.Struct):
    """What happened. Tokens are those that replies told in their usage."""

    conversations: int = 0
    skipped: int = 0
    requests: int = 0
    ok: int = 0
    refused: int = 0
    hung_up: int = 0
    failed: int = 0
    events: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    by_tenant: dict[str, int] = msgspec.field(default_factory=dict)


class Outcome(NamedTuple):
    """One finished request: the assistant's message, if there was one."""

    status: int
    message: dict[str, Any] | None


class _Weighted(Protocol):
    @property
    def share(self) -> float: ...


_W = TypeVar("_W", bound=_Weighted)


Plan = Callable[[float], tuple[Profile, float]]


async def drive(
    base_url: str,
    profile: Profile | Plan | str,
    stop_event: asyncio.Event,
    seed: int,
    rate: float,
    model: str | None = None,
) -> Counts:
    """Send traffic until told to stop, then let open requests finish.

    Args:
        base_url: without a trailing slash; the API is below `/v1`.
        profile: one of `PROFILES`, or its name; or what returns one, and a factor of the rate, for a moment of the
            traffic's own time (s).
        rate: new conversations per second, on average.
        model: None asks the server which it serves.

    Raises:
        KeyError: no such profile.
        aiohttp.ClientError: the server cannot be asked for its model.
    """
    plan = _always(PROFILES[profile] if isinstance(profile, str) else profile)
    connector = aiohttp.TCPConnector(limit=0)  # the profile bounds the concurrency
    async with aiohttp.ClientSession(base_url, connector=connector, timeout=_TIMEOUT) as session:
        driver = _Driver(session, plan, model or await _served_model(session), stop_event)
        await driver.run(Dice(seed, b"arrivals"), seed, rate)
        return driver.counts


def _always(profile: Profile | Plan) -> Plan:
    return (lambda _: (profile, 1.0)) if isinstance(profile, Profile) else profile


async def _served_model(session: aiohttp.ClientSession) -> str:
    async with session.get("/v1/models", raise_for_status=True) as response:
        return str((await response.json())["data"][0]["id"])


class _Driver:
    def __init__(self, session: aiohttp.ClientSession, plan: Plan, model: str, stop_event: asyncio.Event) -> None:
        self._session = session
        self._plan = plan
        self._model = model
        self._stop = stop_event
        self._open = 0
        self.counts = Counts(by_tenant={tenant.name: 0 for tenant in plan(0.0)[0].tenants})

    async def run(self, dice: Dice, seed: int, rate: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            number = 0
            at_s = 0.0
            while True:
                profile, factor = self._plan(at_s)
                pause_s = -math.log(1 - dice.unit()) / (rate * factor)
                at_s += pause_s
                if await self._stopped_within(pause_s):
                    return
                number += 1
                if self._open >= profile.max_concurrent:
                    self.counts.skipped += 1
                    continue
                self._open += 1
                self.counts.conversations += 1
                tasks.create_task(self._conversation(profile, Dice(seed, number), number))

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()

    async def _conversation(self, profile: Profile, dice: Dice, number: int) -> None:
        tenant = _pick(profile.tenants, dice)
        workload = _pick(tenant.workloads, dice)
        headers = {
            "authorization": f"Bearer {tenant.api_key}",
            "x-inferwatch-user": f"{tenant.name}-user-{dice.below(tenant.users)}",
            "x-inferwatch-feature": workload.feature,
            "x-inferwatch-session": f"{tenant.name}-{number}",
        }
        try:
            messages = [{"role": "system", "content": SYSTEM_PROMPT.format(tenant=tenant.name)}]
            for turn in range(_draw(workload.turns, dice)):
                if turn and await self._stopped_within(_draw(workload.pause_ms, dice) / 1000):
                    break
                if not await self._turn(tenant, workload, messages, headers, dice):
                    break
        finally:
            self._open -= 1

    async def _turn(
        self,
        tenant: Tenant,
        workload: Workload,
        messages: list[dict[str, Any]],
        headers: dict[str, str],
        dice: Dice,
    ) -> bool:
        """One request; `messages` grows by the question and the answer. False ends the conversation."""
        messages += _next_messages(workload, messages, dice)
        path, body = request_body(workload, messages, self._model, dice)
        patience = 1 + dice.below(12) if dice.unit() < workload.hangs_up else None
        outcome = None
        for attempt in range(1 + workload.retries):
            if attempt and await self._stopped_within(workload.retry_ms / 1000):
                return False
            self.counts.requests += 1
            self.counts.by_tenant[tenant.name] = self.counts.by_tenant.get(tenant.name, 0) + 1
            try:
                outcome = await self._send(path, body, headers, patience)
            except (aiohttp.ClientError, TimeoutError):
                self.counts.failed += 1
                return False
            if outcome is None or outcome.status == _OK:
                break
            self.counts.refused += 1
        if outcome is None:
            self.counts.hung_up += 1
            return False
        if outcome.status != _OK or outcome.message is None:
            self.counts.ok += outcome.status == _OK
            return False
        self.counts.ok += 1
        messages.append(outcome.message)
        return True

    async def _send(
        self, path: str, body: dict[str, Any], headers: dict[str, str], patience: int | None
    ) -> Outcome | None:
        """The reply, or None if the client left: after `patience` events, or, since a plain reply brings nothing to
        count before it is over, after as many hundredths of a second.
        """
        leaves_by_clock = patience is not None and not body.get("stream")
        deadline = asyncio.timeout((patience or 0) / 100 if leaves_by_clock else None)
        try:
            async with deadline:
                return await self._exchange(path, body, headers, patience)
        except TimeoutError:
            if not deadline.expired():
                raise
            return None

    async def _exchange(
        self, path: str, body: dict[str, Any], headers: dict[str, str], patience: int | None
    ) -> Outcome | None:
        async with self._session.post(path, json=body, headers=headers) as response:
            if response.content_type != "text/event-stream":
                return self._plain(response.status, await response.read())
            tail = b""
            events = 0
            async for data in response.content.iter_any():
                events += data.count(b"data: ")
                tail = (tail + data)[-_MAX_EVENT_BYTES:]
                if patience is not None and events >= patience:
                    response.close()
                    self.counts.events += events
                    return None
            self.counts.events += events
            return self._streamed(response.status, tail)

    def _plain(self, status: int, data: bytes) -> Outcome:
        try:
            reply = msgspec.json.decode(data)
        except msgspec.DecodeError:
            return Outcome(status, None)
        if status != 200:
            return Outcome(status, None)
        self._book(reply.get("usage"))
        return Outcome(status, reply["choices"][0].get("message"))

    def _streamed(self, status: int, data: bytes) -> Outcome:
        content = ""
        calls: list[dict[str, Any]] = []
        usage = None
        for event in data.split(b"\n\n"):
            if not event.startswith(b"data: {"):
                continue
            chunk = msgspec.json.decode(event[6:])
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices", ()):
                delta = choice.get("delta") or {}
                content += delta.get("content") or choice.get("text") or ""
                _merge_calls(calls, delta.get("tool_calls") or ())
        self._book(usage)
        return Outcome(status, {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})})

    def _book(self, usage: dict[str, Any] | None) -> None:
        if usage:
            self.counts.prompt_tokens += usage["prompt_tokens"]
            self.counts.completion_tokens += usage["completion_tokens"]


def _merge_calls(calls: list[dict[str, Any]], deltas: Items[dict[str, Any]]) -> None:
    for delta in deltas:
        if "id" in delta:
            function = {"name": delta["function"]["name"], "arguments": ""}
            calls.append({"id": delta["id"], "type": "function", "function": function})
        if calls:
            calls[-1]["function"]["arguments"] += delta["function"].get("arguments") or ""


def request_body(
    workload: Workload, messages: list[dict[str, Any]], model: str, dice: Dice
) -> tuple[str, dict[str, Any]]:
    """Path and body of the next request of a conversation."""
    body: dict[str, Any] = {"model": model, "max_tokens": _draw(workload.max_tokens, dice)}
    if dice.unit() < workload.streamed:
        body["stream"] = True
        if dice.unit() < workload.asks_usage:
            body["stream_options"] = {"include_usage": True}
    if workload.kind == "completion":
        return "/v1/completions", body | {"prompt": messages[-1]["content"]}
    body["messages"] = list(messages)
    if workload.kind == "agent":
        body |= {"tools": _TOOLS, "tool_choice": "auto"}
    elif workload.kind == "invalid":
        body |= _INVALID[dice.below(len(_INVALID))]
    return "/v1/chat/completions", body


def _next_messages(workload: Workload, messages: list[dict[str, Any]], dice: Dice) -> list[dict[str, Any]]:
    """What the user, or the tools the model called, say next."""
    text = "".join(piece.text for piece in write(dice, _draw(workload.prompt_tokens, dice)))
    calls = messages[-1].get("tool_calls")
    if calls:
        return [{"role": "tool", "tool_call_id": call["id"], "content": text} for call in calls]
    if workload.kind == "retrieval":
        text = f"Answer from this document only.\n\n<document>\n{text}\n</document>\n\nWhat does it say about prices?"
    elif dice.unit() < 0.1:
        text += _PERSONAL[dice.below(len(_PERSONAL))]
    return [{"role": "user", "content": text}]


def _draw(span: Range, dice: Dice) -> int:
    return span.low + dice.below(span.high - span.low + 1)


def _pick(candidates: Items[_W], dice: Dice) -> _W:
    """One of them, by share."""
    point = dice.unit() * sum(candidate.share for candidate in candidates)
    for candidate in candidates:
        point -= candidate.share
        if point < 0:
            return candidate
    return candidates[-1]
