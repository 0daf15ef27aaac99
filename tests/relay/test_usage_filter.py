"""usage_filter: the stream with our usage taken out is the stream without it.

The oracle is vLLM itself: each fixture kind was recorded without usage (`bare`), with a last usage event (`usage`) and
with usage on every event (`continuous`); only ids and clocks differ between the three.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.relay import usage_filter, usage_request
from inferwatch.relay.usage_filter import NO_FINGERPRINT, USAGE_ONLY, Fingerprint, Hide, UsageFilter

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vllm"

# The client hung up or the engine died at another token each time; a forced engine has no bare variant (see below).
_NOT_COMPARABLE = ("_aborted", "dying_", "forced_")
KINDS = sorted(
    path.name.removesuffix(".continuous.json")
    for path in FIXTURES.glob("*.continuous.json")
    if not any(word in path.name for word in _NOT_COMPARABLE)
)

# What no two runs share: ids of tool calls, the clock, measured times.
_VOLATILE = (
    (re.compile(rb'"created":\d+'), b'"created":0'),
    (re.compile(rb"chatcmpl-tool-[0-9a-f]+"), b"chatcmpl-tool-0"),
    (re.compile(rb'("(?:\w+_ms|tokens_per_second)"):[0-9.e-]+'), rb"\1:0"),
    (re.compile(rb"^: keep-alive\n\n", re.MULTILINE), b""),
)


class Case:
    """One recorded stream."""

    def __init__(self, kind: str, variant: str) -> None:
        record = json.loads((FIXTURES / f"{kind}.{variant}.json").read_text())
        self.chunks = [chunk.encode() for chunk in record["response"]["chunks"]]
        self.body = b"".join(self.chunks)
        read = usage_request.read(record["request"]["body"].encode())
        assert read is not None
        self.several = read[0].choices != 1
        self.expected: dict[str, Any] = record["expected"]


def settled(body: bytes) -> bytes:
    """Take out what no two runs share."""
    for pattern, constant in _VOLATILE:
        body = pattern.sub(constant, body)
    return body


def by_choice(body: bytes) -> dict[int, list[bytes]]:
    """Events by choice: how choices interleave no two runs share either."""
    sorted_events: dict[int, list[bytes]] = {}
    for event in settled(body).split(b"\n\n"):
        found = re.search(rb'"choices":\[{"index":(\d+)', event)
        sorted_events.setdefault(int(found[1]) if found else -1, []).append(event)
    return sorted_events


def known(body: bytes) -> Fingerprint:
    fingerprint = Fingerprint()
    fingerprint.learn(body)
    return fingerprint


def run(pieces: Sequence[bytes], hide: Hide, *, several: bool, fingerprint: Fingerprint | None = None) -> bytes:
    stream = UsageFilter(hide, several_choices=several, fingerprint=fingerprint or Fingerprint())
    return b"".join([stream.feed(piece) for piece in pieces]) + stream.finish()


def cut(body: bytes, at: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(at), len(body)]
    return [body[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def test_there_are_enough_fixtures() -> None:
    """A glob that finds nothing must not pass for success."""
    assert len(KINDS) >= 20


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_usage_leaves_what_a_client_without_usage_gets(kind: str, is_known: bool) -> None:
    """filter(continuous) is bare, whether or not the engine's fingerprint was seen before."""
    case = Case(kind, "continuous")
    fingerprint = known(case.body) if is_known else None
    out = run(case.chunks, Hide.ALL, several=case.several, fingerprint=fingerprint)
    assert by_choice(out) == by_choice(Case(kind, "bare").body)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_continuous_usage_leaves_the_final_one(kind: str) -> None:
    """filter(continuous) is `usage` for a client that asked for the final usage."""
    case = Case(kind, "continuous")
    out = run(case.chunks, Hide.CONTINUOUS, several=case.several)
    assert by_choice(out) == by_choice(Case(kind, "usage").body)


@pytest.mark.parametrize("kind", KINDS)
def test_stream_without_usage_passes_untouched(kind: str) -> None:
    """An engine that did not do as asked."""
    case = Case(kind, "bare")
    for hide in Hide:
        assert run(case.chunks, hide, several=case.several) == case.body


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "_big" not in kind])
def test_pieces_do_not_matter(kind: str) -> None:
    """One byte at a time, and each single cut, give what whole chunks give."""
    case = Case(kind, "continuous")
    body = case.body[-6000:].partition(b"\n\n")[2] if len(case.body) > 6000 else case.body
    for hide in Hide:
        whole = run([body], hide, several=case.several)
        assert run([body[at : at + 1] for at in range(len(body))], hide, several=case.several) == whole
        step = max(1, len(body) // 400)
        for at in range(0, len(body), step):
            assert run([body[:at], body[at:]], hide, several=case.several) == whole


@pytest.mark.parametrize("size", [1000, 1460, 16_384, 65_536, 262_144])
def test_over_long_event_is_cleaned_in_pieces(size: int) -> None:
    """Log-probabilities make events of half a megabyte; they are not held, and come out the same."""
    case = Case("completion_echo_logprobs_big", "continuous")
    assert max(map(len, case.chunks)) > usage_filter.MAX_HELD_BYTES
    pieces = [case.body[start : start + size] for start in range(0, len(case.body), size)]
    for hide in Hide:
        whole = run([case.body], hide, several=case.several, fingerprint=known(case.body))
        assert run(pieces, hide, several=case.several, fingerprint=known(case.body)) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_last_usage_of_each_choice_is_kept(kind: str) -> None:
    """For the books: the final usage under USAGE_ONLY, and the continuous ones by choice, add up to it."""
    case = Case(kind, "continuous")
    stream = UsageFilter(Hide.ALL, several_choices=case.several, fingerprint=Fingerprint())
    for chunk in case.chunks:
        stream.feed(chunk)
    final = json.loads(stream.usages.pop(USAGE_ONLY))
    assert final == case.expected["usage"]
    assert sum(json.loads(raw)["completion_tokens"] for raw in stream.usages.values()) == final["completion_tokens"]


@pytest.mark.parametrize("kind", ["chat_aborted", "completion_aborted"])
def test_stream_that_breaks_off_leaves_its_last_usage(kind: str) -> None:
    """What the engine had counted when the client left."""
    case = Case(kind, "continuous")
    stream = UsageFilter(Hide.ALL, several_choices=False, fingerprint=Fingerprint())
    out = b"".join([stream.feed(chunk) for chunk in case.chunks])
    last = [chunk for chunk in case.chunks if b'"usage":' in chunk][-1]
    assert json.loads(stream.usages[0]) == json.loads(last.removeprefix(b"data: "))["usage"]
    assert out.count(b"data: ") == case.body.count(b"data: ")


def test_error_event_passes() -> None:
    """A dying engine's last words reach the client as they are."""
    case = Case("dying_chat", "continuous")
    out = run(case.chunks, Hide.ALL, several=False)
    last = [event for event in case.body.split(b"\n\n") if b'"error"' in event]
    assert last
    assert all(event in out for event in last)
    assert b'"usage"' not in out


# streams built as vLLM builds them


PRINT = b',"system_fingerprint":"vllm-0.32.0-abc"'


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes, bytes, bool]:
    """(bare, usage, continuous, several): one stream in three variants, any text, any interleaving."""
    number = draw(st.integers(1, 3))
    texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(['","usage":{', "\n\n", "}", '"}{'])
    steps = [(index, text) for index in range(number) for text in draw(st.lists(texts, max_size=4))]
    steps = draw(st.permutations(steps))
    left = {index: sum(1 for at, _ in steps if at == index) for index in range(number)}
    details = draw(st.sampled_from(["", ',"completion_tokens_details":null', ',"d":{"r":1,"s":{"t":2}}']))
    tail = draw(st.sampled_from(["", ',"prompt_token_ids":null', ',"metrics":{"a":1}']))
    names_itself = draw(st.booleans())
    bare, usage, continuous = [], [], []
    for count, (index, text) in enumerate(steps):
        left[index] -= 1
        finished = not left[index]
        reason = '"stop"' if finished else "null"
        choice = f'data: {{"id":"x","choices":[{{"index":{index},"text":{json.dumps(text, ensure_ascii=False)},'
        choice += f'"finish_reason":{reason},"stop_reason":null}}]'
        counts = f',"usage":{{"prompt_tokens":3,"completion_tokens":{count}{details}}}'
        own = PRINT.decode() if finished and names_itself else ""
        bare.append(f"{choice}{own}{tail}}}")
        usage.append(f"{choice}{tail}}}")
        continuous.append(f"{choice}{counts}{tail}}}")
        if draw(st.integers(0, 5)) == 0:
            for variant in (bare, usage, continuous):
                variant.append(": keep-alive")
    final = 'data: {"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9}'
    final += f"{PRINT.decode() if names_itself else ''}}}"
    usage.append(final)
    continuous.append(final)
    for variant in (bare, usage, continuous):
        variant.append("data: [DONE]")

    def joined(events: list[str]) -> bytes:
        return "".join(f"{event}\n\n" for event in events).encode()

    return joined(bare), joined(usage), joined(continuous), number > 1


def without_final(body: bytes) -> bytes:
    return re.sub(rb'data: {"id":"x","choices":\[\],.*\n\n', b"", body)


@given(streams(), st.data())
def test_any_stream_in_any_pieces(stream: tuple[bytes, bytes, bytes, bool], data: st.DataObject) -> None:
    """Text that looks like usage stays, usage goes, the fingerprint comes back, events keep their order."""
    bare, usage, continuous, several = stream
    pieces = cut(continuous, data.draw(st.lists(st.integers(0, len(continuous)), max_size=12)))
    assert run(pieces, Hide.CONTINUOUS, several=several) == usage
    assert run(pieces, Hide.ALL, several=several, fingerprint=known(continuous)) == bare
    keep_alive_behind_finish = b'"stop"' in continuous and re.search(rb'"stop"[^\n]*\n\n: keep', continuous)
    if several or not keep_alive_behind_finish:
        assert run(pieces, Hide.ALL, several=several) == bare


@given(streams(), st.data())
def test_over_long_events_in_any_pieces(stream: tuple[bytes, bytes, bytes, bool], data: st.DataObject) -> None:
    """The way of over-long events, taken by all but the usage-only one: the same, once the fingerprint is known."""
    fingerprint = known(stream[2])
    bare, usage, continuous = (without_final(variant) for variant in stream[:3])
    pieces = cut(continuous, data.draw(st.lists(st.integers(0, len(continuous)), max_size=12)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usage_filter, "MAX_HELD_BYTES", 8)
        assert run(pieces, Hide.CONTINUOUS, several=stream[3]) == usage
        assert run(pieces, Hide.ALL, several=stream[3], fingerprint=fingerprint) == bare


def test_over_long_finish_event_cut_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also within the very bytes that say that it is a finish event."""
    monkeypatch.setattr(usage_filter, "MAX_HELD_BYTES", 8)
    choice = b'data: {"choices":[{"index":0,"text":"x","finish_reason":"stop","stop_reason":null}]'
    body, bare = choice + b',"usage":{"n":{}},"x":1}\n\n', choice + PRINT + b',"x":1}\n\n'
    for at in range(len(body)):
        assert run([body[:at], body[at:]], Hide.ALL, several=False, fingerprint=known(PRINT + b"}")) == bare


@given(st.binary(max_size=300), st.data())
def test_what_is_no_such_stream_passes_untouched(body: bytes, data: st.DataObject) -> None:
    """Any bytes without a usage key come out as they went in."""
    pieces = cut(body, data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    for hide in Hide:
        for several in (False, True):
            assert run(pieces, hide, several=several) == body


def test_events_are_not_held_back() -> None:
    """A whole event goes out with the read it came in; only a finish event may wait, for the next one."""
    case = Case("chat", "continuous")
    stream = UsageFilter(Hide.ALL, several_choices=False, fingerprint=known(case.body))
    sizes = [len(stream.feed(chunk)) for chunk in case.chunks]
    finish = next(number for number, chunk in enumerate(case.chunks) if b'"finish_reason":"' in chunk)
    assert all(sizes[:finish])
    assert sizes[finish + 1] > sizes[finish]


def test_endless_event_takes_no_memory() -> None:
    """An event without an end is passed on; at most the beginning of a usage object is held."""
    stream = UsageFilter(Hide.ALL, several_choices=False, fingerprint=Fingerprint())
    stream.feed(b'data: {"choices":[{"x":"')
    out = 0
    for _ in range(2000):
        out += len(stream.feed(b"x" * 1000))
        assert sum(map(len, stream._held)) <= usage_filter.MAX_HELD_BYTES + 1000
    assert out > 1_900_000


def test_endless_usage_object_takes_no_memory() -> None:
    """What only looks like usage is given up."""
    stream = UsageFilter(Hide.ALL, several_choices=False, fingerprint=Fingerprint())
    stream.feed(b'data: {"choices":[{"index":0}],"usage":{"x":"')
    for _ in range(2000):
        stream.feed(b"x" * 1000)
        assert sum(map(len, stream._held)) <= usage_filter.MAX_HELD_BYTES + 1000


def test_waiting_for_a_fingerprint_takes_no_memory() -> None:
    """With many choices the first finish event may wait for long: only MAX_WAITING_BYTES are held."""
    stream = UsageFilter(Hide.ALL, several_choices=True, fingerprint=Fingerprint())
    out = b""
    for number in range(2000):
        reason = b'"stop"' if number == 0 else b"null"
        choice = b'{"index":%d,"text":"x","finish_reason":%b}' % (number % 7, reason)
        out += stream.feed(b'data: {"choices":[%b],"usage":{"completion_tokens":1}}\n\n' % choice)
        held = sum(len(before) + len(after) for before, after in stream._waiting or ())
        assert held <= usage_filter.MAX_WAITING_BYTES
    assert (out + stream.finish()).count(b"data: ") == 2000


def test_usages_are_bounded_by_the_choices() -> None:
    """Not by the length of the stream, nor by an index that the engine makes up."""
    stream = UsageFilter(Hide.ALL, several_choices=False, fingerprint=Fingerprint())
    for number in range(1000):
        stream.feed(b'data: {"choices":[{"index":%d}],"usage":{"completion_tokens":1}}\n\n' % number)
    assert len(stream.usages) == 1


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (b'{"choices":[],"usage":{},"system_fingerprint":"fp_1"}', b',"system_fingerprint":"fp_1"'),
        (b'{"choices":[],"usage":{},"system_fingerprint":null}', b""),
        (b'{"choices":[],"usage":{}}', b""),
        (b'{"choices":[],"system_fingerprint":"cut off', b""),
    ],
)
def test_fingerprint_is_learnt_from_the_engine(reply: bytes, value: bytes) -> None:
    """Also that it sends none."""
    assert known(reply).value == value


def test_fingerprint_learnt_from_one_stream_serves_the_next() -> None:
    """Streams with several choices need not wait for it again."""
    case = Case("chat_n2", "continuous")
    fingerprint = known(case.body)
    stream = UsageFilter(Hide.ALL, several_choices=True, fingerprint=fingerprint)
    assert all(stream.feed(chunk) for chunk in case.chunks if b'"choices":[{' in chunk)


def test_engine_to_whose_finish_events_nothing_belongs_teaches_nothing() -> None:
    """What its usage-only event may have on it would be put into the streams of all that come later."""
    case = Case("chat_n2", "continuous")
    stream = UsageFilter(Hide.ALL, several_choices=True, fingerprint=NO_FINGERPRINT)
    assert b"system_fingerprint" not in b"".join(stream.feed(chunk) for chunk in case.chunks)
    assert NO_FINGERPRINT.value == b""


NULLED = [
    b'data: {"choices":[{"index":0,"text":"a","finish_reason":null}],"usage":null}\n\n',
    b'data: {"choices":[{"index":0,"text":"b","finish_reason":"stop"}],"usage":null}\n\n',
]
ENDS = [b'data: {"choices":[],"usage":{"prompt_tokens":3}}\n\n', b"data: [DONE]\n\n"]


@pytest.mark.parametrize("hide", [Hide.ALL, Hide.CONTINUOUS])
@pytest.mark.parametrize("long", [False, True])
@given(data=st.data())
def test_null_stands_where_an_engine_has_null(hide: Hide, long: bool, data: st.DataObject) -> None:
    """trtllm-serve's completions, in any split: the client gets what it would get without our asking."""
    bare = b"".join(NULLED)
    if long:
        bare = bare.replace(b'"a"', b'"%b"' % (b"x" * usage_filter.MAX_HELD_BYTES * 2))
    body = bare.replace(b"null}\n", b'{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":0}}}\n')
    at = data.draw(st.lists(st.integers(0, len(body)), max_size=6))
    stream = UsageFilter(hide, several_choices=True, fingerprint=NO_FINGERPRINT, nothing=b',"usage":null')
    assert not stream.is_simple
    pieces = cut(body + b"".join(ENDS), at)
    shown = b"".join([stream.feed(piece) for piece in pieces]) + stream.finish()
    assert shown == bare + b"".join(ENDS if hide is Hide.CONTINUOUS else ENDS[1:])
