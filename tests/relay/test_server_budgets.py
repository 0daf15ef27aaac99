"""server: budgets are asked before the engine hears of a request, and end a stream where its parser expects an end."""

import json
from typing import Any

import pytest
from harness import Message, Rig, Start, chunk, get, ok, post, until, wire

from inferwatch.budget_rules import Names
from inferwatch.relay import room
from inferwatch.relay.admission import Admission, BudgetRefusal
from inferwatch.relay.reckoning import Wish
from inferwatch.tap import Cut

RESERVED = ((3, 10, 100, 100), (5, 1, 2, 2))
SPENT = BudgetRefusal("acme", "budget `acme` is spent", 3600, spent=True)
HELD = BudgetRefusal("acme", "budget `acme`: try again", 1, spent=False)
SOON = HELD._replace(soon=True)
SSE = wire("HTTP/1.1 200 OK\ncontent-type: text/event-stream\nTransfer-Encoding: chunked\n\n")
STREAMED = '{"model":"m","stream":true,"max_tokens":50,"n":1}'


class Gate:
    """Says what the test says, and remembers what it was asked."""

    def __init__(self, answer: Admission | BudgetRefusal | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[Names, Wish]] = []
        self.last: list[bool] = []

    def admit(self, names: Names, wish: Wish, *, last: bool = True) -> Admission | BudgetRefusal:
        self.asked.append((names, wish))
        self.last.append(last)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def guarded(start: Start, answer: Admission | BudgetRefusal | Exception, **sections: Any) -> tuple[Rig, Gate]:
    rig = await start(**sections)
    gate = rig.relay.room.gate = Gate(answer)
    return rig, gate


def event(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    content = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]} | more
    return b"data: %b\n\n" % json.dumps(content).encode()


def events(reply: Message) -> list[Any]:
    texts = [text.removeprefix("data: ") for text in reply.body.decode().strip().split("\n\n")]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


async def test_what_is_reserved_goes_into_the_open(start: Start) -> None:
    """The gate hears whose request it is and how much it may need; what it took is told to the collector."""
    rig, gate = await guarded(start, Admission(RESERVED))
    rig.engine.answer(ok())
    body = '{"model":"m","n":2,"max_tokens":50}'
    assert (await rig.ask(post(body, "/v1/completions", "x-inferwatch-feature: search"))).status == 200
    assert gate.asked == [(Names("anonymous", "", "search", "m"), Wish(len(body), 2, 50, stream=False))]
    assert rig.tap.opens[0].reserved == RESERVED


@pytest.mark.parametrize(
    ("request_", "generates"),
    [
        (post("{}", "/v1/embeddings"), False),
        (post("[", "/v1/chat/completions"), True),
        (post("", "/nobody/knows"), True),
    ],
)
async def test_every_post_is_asked_for(start: Start, request_: bytes, generates: bool) -> None:
    """Also one that cannot be read, and on a route that nobody knows."""
    rig, gate = await guarded(start, Admission())
    rig.engine.answer(ok())
    await rig.ask(request_)
    assert [wish.generates for _, wish in gate.asked] == [generates]


async def test_a_forms_model_is_asked_for(start: Start) -> None:
    """Budgets of a model's hold for transcriptions."""
    rig, gate = await guarded(start, SPENT)
    body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
    head = "POST /v1/audio/transcriptions HTTP/1.1\nHost: h\nContent-Type: multipart/form-data; boundary=b\n"
    assert (await rig.ask(wire(f"{head}Content-Length: {len(body)}\n\n", body))).status == 429
    assert [names.model for names, _ in gate.asked] == ["whisper"]


async def test_what_generates_nothing_is_not_asked_for(start: Start) -> None:
    """A spent budget does not keep anybody from looking at the models."""
    rig, gate = await guarded(start, SPENT)
    rig.engine.answer(ok())
    assert (await rig.ask(get("/v1/models"))).status == 200
    assert (await rig.ask(post("{}", "/tokenize"))).status == 200
    assert gate.asked == []


@pytest.mark.parametrize(
    ("refusal", "retry", "kind"), [(SPENT, b"false", "insufficient_quota"), (HELD, b"true", "rate_limit_exceeded")]
)
async def test_without_room_the_engine_hears_nothing(
    start: Start, refusal: BudgetRefusal, retry: bytes, kind: str
) -> None:
    """A 429 that says when to come back; the connection stays; it is booked as rejected, with its model."""
    rig, _ = await guarded(start, refusal)
    client = await rig.connect()
    for _ in range(2):
        reply = await client.ask(post(STREAMED))
        assert reply.status == 429
        assert reply.one("retry-after") == b"%d" % refusal.retry_after_s
        assert reply.one("x-should-retry") == retry
        assert (reply.json["error"]["code"], reply.json["error"]["type"]) == ("budget_exceeded", kind)
        assert reply.json["error"]["message"] == refusal.message
    close = await rig.tap.close(2)
    assert (close.outcome, close.error, close.status) == ("rejected", "budget", 429)
    assert (rig.tap.opens[0].model, rig.tap.opens[0].reserved) == ("m", ())
    assert rig.engine.connections == 0


async def test_room_that_may_come_soon_is_waited_for(start: Start) -> None:
    """What has just ended holds its room until it is settled; whoever comes meanwhile is let in then."""
    rig, gate = await guarded(start, SOON)
    rig.engine.answer(ok())
    client = await rig.connect()
    client.send(post(STREAMED))
    await until(lambda: len(gate.asked) == 2)
    gate.answer = Admission(RESERVED)
    assert (await client.reply()).status == 200
    assert rig.relay.room.waiting == 0
    await rig.tap.close()
    assert rig.tap.opens[0].reserved == RESERVED


async def test_room_is_not_waited_for_for_long(start: Start) -> None:
    """Then it is a refusal like any other, which counts once; also of a body that is passed on."""
    rig, gate = await guarded(start, SOON, limits={"buffer_request_bytes": 1000})
    assert (await rig.ask(post(STREAMED))).status == 429
    assert gate.last == [False] * room.LOOKS + [True]
    whole = post(b'{"model":"m","prompt":"' + b"x" * 5000 + b'"}')
    client = await rig.connect()
    assert (await client.send(whole[:-1000]).reply()).status == 429
    assert gate.last == 2 * ([False] * room.LOOKS + [True])
    assert rig.engine.connections == rig.relay.room.waiting == 0


async def test_who_hangs_up_while_it_waits_for_room_waits_no_more(start: Start) -> None:
    """Nothing is taken for it any more."""
    rig, gate = await guarded(start, SOON)
    client = await rig.connect()
    client.send(post(STREAMED))
    await until(lambda: rig.relay.room.waiting == 1)
    client.close()
    assert (await rig.tap.close()).outcome == "client_abort"
    await until(lambda: rig.relay.room.waiting == 0)
    assert len(gate.last) <= room.LOOKS


async def test_only_so_many_wait_for_room(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above that they are refused at once, as if nothing could come soon."""
    monkeypatch.setattr(room, "MAX_WAITING", 0)
    rig, gate = await guarded(start, SOON)
    assert (await rig.ask(post(STREAMED))).status == 429
    assert gate.last == [True]


async def test_a_fault_of_ours_refuses_nobody(start: Start) -> None:
    """It is counted, and the request goes on."""
    rig, _ = await guarded(start, OSError("no lock"))
    rig.engine.answer(ok(b""))
    rig.tap.expected_faults = 1
    assert (await rig.ask(post("{}"))).status == 200


async def test_a_body_that_is_passed_on_is_judged_by_its_length(start: Start) -> None:
    """Before the engine is connected; its beginning tells the model."""
    rig, gate = await guarded(start, SPENT, limits={"buffer_request_bytes": 1000})
    body = b'{"model":"m","max_tokens":50,"prompt":"' + b"x" * 5000 + b'"}'
    client = await rig.connect()
    whole = post(body)
    reply = await client.send(whole[: len(whole) - 1000]).reply()
    assert reply.status == 429
    assert await client.rest() == b""
    ((names, wish),) = gate.asked
    assert (names.model, wish.prompt_bytes, wish.max_tokens) == ("m", len(body), 50)
    assert rig.engine.connections == 0


async def test_what_was_reserved_is_told_also_if_the_engine_cannot_be_reached(start: Start) -> None:
    """With the names it was reserved under, or nobody would let go of it."""
    rig, _ = await guarded(start, Admission(RESERVED))
    await rig.engine.stop()
    assert (await rig.ask(post(STREAMED))).status == 503
    await rig.tap.close()
    assert (rig.tap.opens[0].model, rig.tap.opens[0].reserved) == ("m", RESERVED)


@pytest.mark.parametrize(
    ("told", "stop_reason", "error"),
    [
        (Cut((1, 999)), "budget_exceeded", "budget"),
        (Cut((1,), "loop"), "repetition_detected", "loop"),
        (Cut((1,), "of a later version"), "budget_exceeded", "budget"),
    ],
    ids=["budget", "loop", "unknown"],
)
async def test_a_stream_is_cut_at_the_end_of_an_event(start: Start, told: Cut, stop_reason: str, error: str) -> None:
    """In the middle of an event it goes on to its end, then says why, and the reply is complete. The engine is hung up
    on. Told again for another reason, it ends once, for the first."""
    rig = await start()
    client = await rig.connect()
    client.send(post(STREAMED, "/v1/chat/completions"))
    engine = await rig.engine.accept()
    await engine.request()
    second = event("two")
    engine.send(SSE + chunk(event("one")) + chunk(second[:20]))
    await until(lambda: len(b"".join(read[2] for read in rig.tap.reads)) >= len(event("one")) + 20)
    rig.relay.cut(told)
    rig.relay.cut(Cut((1,)))
    rig.relay.cut(Cut((1,), "loop"))
    engine.send(chunk(second[20:] + event("never")))
    reply = await client.reply()
    assert reply.complete
    one, two, last, done = events(reply)
    assert [each["choices"][0]["delta"]["content"] for each in (one, two)] == ["one", "two"]
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["choices"][0]["stop_reason"] == stop_reason
    assert done == "[DONE]"
    assert await engine.rest() == b""
    close = await rig.tap.close()
    assert (close.outcome, close.error, close.status) == ("stream_error", error, 200)
    rig.engine.answer(ok(b"next"))
    assert (await client.ask(get("/next"))).body == b"next"  # the reply was whole, and promised no close


@pytest.mark.parametrize("framing", [SSE, wire("HTTP/1.1 200 OK\ncontent-type: text/event-stream\n\n")])
async def test_between_two_events_a_stream_is_cut_at_once(start: Start, framing: bytes) -> None:
    """The engine is not waited for: its next token would be one too many."""
    rig = await start()
    client = await rig.connect()
    client.send(post(STREAMED, "/v1/chat/completions"))
    engine = await rig.engine.accept()
    await engine.request()
    engine.send(framing + (chunk(event("one")) if framing is SSE else event("one")))
    await until(lambda: len(rig.tap.reads) == 1)
    rig.relay.cut(Cut((1,), "loop"))
    rig.relay.cut(Cut((1,)))  # a budget is spent as well
    reply = await client.reply()
    assert reply.complete
    one, last, done = events(reply)
    assert one["choices"][0]["delta"]["content"] == "one"
    assert (last["choices"][0]["finish_reason"], done) == ("length", "[DONE]")
    assert await engine.rest() == b""
    assert (await rig.tap.close()).error == "loop"
    assert not rig.relay.active


async def test_an_event_that_is_held_back_is_not_ended_before(start: Start) -> None:
    """A finish waits for the fingerprint behind it; said twice, a choice would end twice."""
    rig = await start(upstream={"engine": "vllm"})
    client = await rig.connect()
    client.send(post(STREAMED, "/v1/chat/completions"))
    engine = await rig.engine.accept()
    await engine.request()
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    finish = {"choices": [{"index": 0, "delta": {"content": "end"}, "finish_reason": "stop"}], "usage": usage}
    engine.send(SSE + chunk(event("one", usage=usage)) + chunk(event("end", **finish)))
    await until(lambda: len(b"".join(read[2] for read in rig.tap.reads)) >= len(event("one") + event("end")))
    rig.relay.cut(Cut((1,)))
    engine.send(chunk(event("", choices=[], usage=usage) + b"data: [DONE]\n\n"))
    *said, done = events(await client.reply())
    assert [choice["finish_reason"] for each in said for choice in each["choices"]] == [None, "stop"]
    assert done == "[DONE]"


async def test_a_stream_that_has_not_begun_ends_with_its_first_event(start: Start) -> None:
    """It is told once only that it must end, so that must not be forgotten."""
    rig = await start()
    client = await rig.connect()
    client.send(post(STREAMED, "/v1/chat/completions"))
    engine = await rig.engine.accept()
    await engine.request()
    rig.relay.cut(Cut((1,)))
    engine.send(SSE + chunk(event("one")) + chunk(event("two")))
    one, last, done = events(await client.reply())
    assert one["choices"][0]["delta"]["content"] == "one"
    assert (last["choices"][0]["finish_reason"], done) == ("length", "[DONE]")


async def test_of_an_unknown_dialect_the_reply_breaks_off(start: Start) -> None:
    """Nothing is invented; the client sees that the end is missing."""
    rig = await start()
    client = await rig.connect()
    client.send(post("{}", "/generate_stream"))
    engine = await rig.engine.accept()
    await engine.request()
    engine.send(SSE + chunk(b'data:{"token":1}\n\n'))
    await until(lambda: len(rig.tap.reads) == 1)
    rig.relay.cut(Cut((1,)))
    engine.send(chunk(b'data:{"token":2}\n\n'))
    reply = await client.reply()
    assert not reply.complete
    assert await client.is_closed()
    assert reply.body == b'data:{"token":1}\n\ndata:{"token":2}\n\n'


async def test_what_is_no_stream_is_not_cut(start: Start) -> None:
    """Half an error, or half a plain answer, is of no use to anybody."""
    rig = await start()
    client = await rig.connect()
    client.send(post(STREAMED))
    engine = await rig.engine.accept()
    await engine.request()
    rig.relay.cut(Cut((1,)))
    engine.send(wire("HTTP/1.1 400 Bad Request\nContent-Type: application/json\nContent-Length: 8\n\n", b"[1,\n\n"))
    await until(lambda: len(rig.tap.reads) == 1)
    rig.relay.cut(Cut((1,)))
    engine.send(b"\n2]")
    assert (await client.reply()).body == b"[1,\n\n\n2]"
    assert (await rig.tap.close()).error == ""
