"""usage_request: one member spliced into the request body, nothing else touched."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.engines import PROFILES, SGLANG, TGI, TRTLLM, UNKNOWN, VLLM, Profile
from inferwatch.relay import usage_request
from inferwatch.relay.lax_values import is_true
from inferwatch.relay.usage_filter import Hide
from inferwatch.relay.usage_request import MAX_CHOICES, MAX_TOKENS, StreamedEdit

CHAT = "/v1/chat/completions"
BOTH = {"include_usage": True, "continuous_usage_stats": True}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
OPTIONS = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {}, optional={"include_usage": st.booleans() | st.none(), "continuous_usage_stats": st.booleans()}
    ),
    st.dictionaries(st.sampled_from(["include_usage", "include_obfuscation", "x"]), VALUES, max_size=3),
    VALUES,
)
REQUESTS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"stream": st.sampled_from([True, True, True, False, None, 1, 0, "true", "no", "yes", 2, [], {}, 1.0])},
    optional={
        "stream_options": OPTIONS,
        "model": st.text(max_size=8),
        "n": st.integers(-2, 5) | st.text(max_size=2),
        "prompt": VALUES,
        "messages": VALUES,
        "extra": VALUES,
    },
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A request in any layout and order."""
    members = draw(st.permutations(list(draw(REQUESTS).items())))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n ", " :\t")]))
    text = json.dumps(dict(members), separators=separators, ensure_ascii=draw(st.booleans()))
    return (
        draw(st.sampled_from(["", " ", "\n\t", "\ufeff"])) + text + draw(st.sampled_from(["", "\n", " \r\n\t"]))
    ).encode()


def edited(body: bytes) -> tuple[bytes, Hide | None]:
    """What the relay does with a body at hand, asked of an engine that takes it."""
    read = usage_request.read(body)
    if read is None or not read[0].stream:
        return body, None
    edit = usage_request.edit(body, read[1], VLLM)
    return (body, None) if edit is None else (edit.apply(body), edit.hide)


def streamed(pieces: list[bytes], *, ask: bool = True) -> tuple[bytes, StreamedEdit]:
    edit = StreamedEdit(VLLM if ask else UNKNOWN, CHAT)
    return b"".join([edit.feed(piece) for piece in pieces]) + edit.finish(), edit


def split(data: st.DataObject, body: bytes) -> list[bytes]:
    at = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    return [body[start:end] for start, end in zip([0, *at], [*at, len(body)], strict=True)]


@given(bodies())
def test_result_is_the_clients_object_but_for_stream_options(body: bytes) -> None:
    """Parsed, everything else is equal; unedited, every byte is."""
    sent, hide = edited(body)
    before, after = json.loads(body), json.loads(sent)
    if hide is None:
        assert sent == body
        return
    options = after.pop("stream_options")
    asked = before.pop("stream_options", None) or {}
    assert after == before
    assert options == {**asked, **BOTH}
    assert (hide is Hide.CONTINUOUS) == is_true(asked.get("include_usage"))


@given(bodies())
def test_only_a_streaming_request_is_edited(body: bytes) -> None:
    """vLLM answers 400 to stream_options without stream."""
    stream = json.loads(body)["stream"]
    _, hide = edited(body)
    assert hide is None or stream is True or stream in (1, "true", "yes")


@given(bodies(), st.data())
def test_a_streamed_body_gets_the_same_edit(body: bytes, data: st.DataObject) -> None:
    """In any split of the bytes; but for one case: stream_options before stream is replaced before stream is known, or,
    if it is null, which is taken without stream, stays."""
    sent, edit = streamed(split(data, body))
    wanted, hide = edited(body)
    request = json.loads(body)
    if "stream_options" in request and request["stream_options"] is None and (sent, edit.hide) == (body, None):
        assert hide is None or list(request).index("stream_options") < list(request).index("stream")
        return
    if hide is None and not is_true(request["stream"]) and "stream_options" in request:
        assert edit.hide is None
        assert {**json.loads(sent), "stream_options": 0} == {**request, "stream_options": 0}
        return
    assert sent == wanted
    assert edit.hide == hide


@given(bodies(), st.data())
def test_a_streamed_body_is_untouched_when_nothing_is_asked(body: bytes, data: st.DataObject) -> None:
    """An engine that is not asked gets the bytes as they came."""
    sent, edit = streamed(split(data, body), ask=False)
    assert (sent, edit.hide) == (body, None)


@given(st.binary(max_size=300), st.data())
def test_a_streamed_body_that_is_no_json_is_untouched(body: bytes, data: st.DataObject) -> None:
    """Whatever it is, the engine gets it."""
    sent, edit = streamed(split(data, body))
    assert (sent, edit.hide) == (body, None) or edit.hide is not None


@given(st.binary(max_size=100))
def test_no_bytes_crash_it(body: bytes) -> None:
    """A body that is no JSON object is not ours to judge."""
    for candidate in (body, b'{"stream":true,' + body, b'{"stream":true,"stream_options":' + body + b"}"):
        sent, hide = edited(candidate)
        assert sent == candidate or hide is not None


@pytest.mark.parametrize("value", ["true", "1", "1.0", '"true"', '"1"', '"YES"', '"on"', '"t"', '"y"'])
def test_what_vllm_takes_for_true_streams(value: str) -> None:
    """Pydantic's lax booleans, seen on the wire."""
    sent, hide = edited(b'{"stream":%b}' % value.encode())
    assert json.loads(sent)["stream_options"] == BOTH
    assert hide is Hide.ALL


@pytest.mark.parametrize("value", ["false", "0", "null", '"false"', '"truthy"', '""', "2", "-1", "[]", "[true]", "{}"])
def test_what_is_not_a_stream_is_not_edited(value: str) -> None:
    """Nor what vLLM will refuse."""
    body = b'{"stream":%b}' % value.encode()
    assert edited(body) == (body, None)


@pytest.mark.parametrize(
    ("options", "sent", "hide"),
    [
        (None, BOTH, Hide.ALL),
        ("null", BOTH, Hide.ALL),
        (' { "include_usage" : true } ', BOTH, Hide.CONTINUOUS),
        ('{"include_usage":true,"continuous_usage_stats":false}', BOTH, Hide.CONTINUOUS),
        ('{"include_usage":true,"continuous_usage_stats":null}', BOTH, Hide.CONTINUOUS),
        ('{"include_usage":false}', BOTH, Hide.ALL),
        ('{"include_usage":null}', BOTH, Hide.ALL),
        ('{"include_usage":false,"continuous_usage_stats":true}', BOTH, Hide.ALL),
        ('{"include_usage":true,"x":[1,{"y":"\\u00e9"}]}', {**BOTH, "x": [1, {"y": "é"}]}, Hide.CONTINUOUS),
        ("{}", BOTH, Hide.ALL),
        ('{"include_obfuscation":false}', {**BOTH, "include_obfuscation": False}, Hide.ALL),
        ('{"continuous_usage_stats":true}', BOTH, Hide.ALL),
        ('{"include_usage":0}', BOTH, Hide.ALL),
        ('{"include_usage":"No"}', BOTH, Hide.ALL),
        ('{"include_usage":0.0,"continuous_usage_stats":"off"}', BOTH, Hide.ALL),
        ('{"include_usage":1}', BOTH, Hide.CONTINUOUS),
        ('{"include_usage":"true","continuous_usage_stats":0}', BOTH, Hide.CONTINUOUS),
    ],
)
def test_wish_of_the_client_decides_what_is_hidden(options: str | None, sent: dict[str, Any], hide: Hide) -> None:
    """What it asked for stays in the reply; what only we asked for is taken out."""
    member = b"" if options is None else b',"stream_options":' + options.encode()
    result, hidden = edited(b'{"stream":true' + member + b"}")
    assert json.loads(result) == {"stream": True, "stream_options": sent}
    assert hidden is hide


@pytest.mark.parametrize(
    "options",
    [
        '{"include_usage":true,"continuous_usage_stats":true}',
        '{"include_usage":1,"continuous_usage_stats":"yes"}',
        '{"include_usage":2}',
        '{"include_usage":"maybe"}',
        '{"include_usage":[]}',
        '{"include_usage":true,"continuous_usage_stats":"x"}',
        "[]",
        '"x"',
        "1",
        "true",
    ],
)
def test_options_we_do_not_understand_are_left_alone(options: str) -> None:
    """Also those that ask for everything already."""
    body = b'{"stream":true,"stream_options":' + options.encode() + b"}"
    assert edited(body) == (body, None)
    assert streamed([body])[0] == body


@pytest.mark.parametrize(
    "extra", ["1" + "0" * 30, "-1" + "0" * 30, "1e999", "0.1", "1.0", "-0.0", '"\\ud83d\\ude00"', '"\\ud800"']
)
def test_odd_values_beside_include_usage_survive_or_are_left_alone(extra: str) -> None:
    """A value that cannot be written back as it was must not be written at all, and must not raise."""
    body = b'{"stream":true,"stream_options":{"include_usage":true,"x":%b}}' % extra.encode()
    for sent in (edited(body)[0], streamed([body])[0]):
        assert repr(json.loads(sent)["stream_options"]["x"]) == repr(json.loads(extra))


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream":true,"stre\\u0061m_options":{"include_usage":true}}',
        b'{"stre\\u0061m":true}',
        b'{"stream":true,"stream_options":null,"stre\\u0061m_options":null}',
        b'{"stream_options":{"include_usage":true},"stream":true,"stream_options":null}',
        b'{"stream":false,"stream":true}',
        b'{"stream":true,"stream":false}',
        b'{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}',
        b'{"stream":true,"stream_options":{"include_us\\u0061ge":false}}',
    ],
)
def test_escaped_and_repeated_keys_never_make_it_ask_twice(body: bytes) -> None:
    """The last of repeated keys counts for every parser, and an escaped one is the same key."""
    in_pieces, edit = streamed([body])
    for sent, hide in (edited(body), (in_pieces, edit.hide)):
        after = json.loads(sent)
        if sent != body:
            assert after["stream_options"] == BOTH
            assert after["stream"] is True
            assert hide is not None


@pytest.mark.parametrize(
    ("body", "choices"),
    [
        ('{"messages":[]}', 1),
        ('{"n":3}', 3),
        ('{"n":0}', 1),
        ('{"n":-1}', 1),
        ('{"n":"3"}', 3),
        ('{"n":true}', 1),
        ('{"n":2.0}', 2),
        ('{"n":2.5}', 1),
        ('{"prompt":"x","n":2}', 2),
        ('{"prompt":["a","b","c"]}', 3),
        ('{"prompt":[ "a" , "b" ],"n":2}', 4),
        ('{"prompt":[1,2,3]}', 1),
        ('{"prompt":[[1,2],[3]]}', 2),
        ('{"prompt":[]}', 1),
        ('{"prompt":{}}', 1),
        ('{"n":99999999999}', MAX_CHOICES),
    ],
)
def test_choices_are_n_times_prompts(body: str, choices: int) -> None:
    """A list of strings or of token lists is many prompts; a list of token ids is one. Numbers as vLLM reads them."""
    read = usage_request.read(body.encode())
    assert read is not None
    assert read[0].choices == choices


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ("{}", 0),
        ('{"max_tokens":7}', 7),
        ('{"max_completion_tokens":9}', 9),
        ('{"max_tokens":7,"max_completion_tokens":5}', 7),
        ('{"max_tokens":null,"max_completion_tokens":5}', 5),
        ('{"max_tokens":"64"}', 64),
        ('{"max_tokens":" 64 "}', 64),
        ('{"max_tokens":64.0}', 64),
        ('{"max_tokens":-1}', 0),
        ('{"max_tokens":"-1"}', 0),
        ('{"max_tokens":1.5}', 0),
        ('{"max_tokens":true}', 0),
        ('{"max_tokens":[1]}', 0),
        ('{"max_tokens":"%s"}' % ("9" * 10_000), 0),
        ('{"max_tokens":99999999999999999999999}', MAX_TOKENS),  # no frame of the tap could carry it
        ('{"max_tokens":1e300}', MAX_TOKENS),
    ],
)
def test_max_tokens_is_the_larger_of_its_two_names(body: str, most: int) -> None:
    """As vLLM reads numbers; what is none is not given. The same of a body in pieces."""
    read = usage_request.read(body.encode())
    assert read is not None
    assert read[0].max_tokens == pytest.approx(most)
    _, edit = streamed([body[:9].encode(), body[9:].encode()])
    if len(body) < 1000:  # of a longer value nothing is kept
        assert edit.facts().max_tokens == pytest.approx(most)


@pytest.mark.parametrize(
    ("model", "name"), [('"tiny"', "tiny"), ("1", ""), ("null", ""), ('"\\u00e9"', "é"), ("[]", "")]
)
def test_model_is_a_string_or_unknown(model: str, name: str) -> None:
    """An odd model is the engine's to refuse."""
    read = usage_request.read(b'{"model":%b}' % model.encode())
    assert read is not None
    assert read[0].model == name


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"x", b'{"a":1', b"\xff{}", b'{"a":nan}', b"[" * 100_000, b'{"a":' * 100_000, b'{"a":"\n"}'),
        *('"x"'.encode("utf-16"), "[1]".encode("utf-32"), '{"a":'.encode("utf-16")),
    ],
)
def test_what_is_no_json_object_has_no_facts(body: bytes) -> None:
    """Also nested so deep that a parser gives up."""
    assert usage_request.read(body) is None


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("body", "hide"),
    [
        ('{"stream":false,"stream_options":null}', None),
        ('{"stream_options":null}', None),
        ('{"stream":true,"stream_options":[]}', None),
        ('{"stream":true,"stream_options":{}}', Hide.ALL),
        ('{"stream":true,"stream_options":null}', Hide.ALL),
        ('{"stream":true,"stream_options":null,"stream_options":{"include_usage":true}}', Hide.CONTINUOUS),
        ('{"stream":true,"stream_options":{"include_usage":true},"stream_options":null}', Hide.ALL),
        ('{"stream":true,"stream_options":null,"stream_options":[]}', None),
    ],
)
def test_what_the_engine_takes_of_a_streamed_body_it_still_takes(body: str, hide: Hide | None, size: int) -> None:
    """vLLM takes `stream_options: null` without a stream, and nothing else there; of a repeated key the last counts."""
    data = body.encode()
    sent, edit = streamed([data[start : start + size] for start in range(0, len(data), size)])
    assert edit.hide is hide
    options = json.loads(sent).get("stream_options")
    assert options == (json.loads(body).get("stream_options") if hide is None else BOTH)


def test_byte_order_mark_in_front_is_skipped_as_the_engine_does() -> None:
    """Once, and it stays where it is."""
    body = b'\xef\xbb\xbf{"model":"m","stream":true,"stream_options":null}'
    sent, hide = edited(body)
    assert (json.loads(sent), hide) == ({"model": "m", "stream": True, "stream_options": BOTH}, Hide.ALL)
    assert sent.startswith(b'\xef\xbb\xbf{"model":"m"')
    assert edited(b"\xef\xbb\xbf" + body)[1] is None


def test_facts_of_a_streamed_body() -> None:
    """As far as they are kept: the number of prompts of a long list is unknown."""
    _, edit = streamed([b'{"model":"m","n":2,"stre', b'am":true,"prompt":["', b"x" * 10_000, b'"]}'])
    assert edit.facts() == usage_request.Facts("m", True, 0, 2)
    _, edit = streamed([b'{"model":"m","n":2,"messages":"', b"x" * 10_000, b'"}'])
    assert edit.facts() == usage_request.Facts("m", False, 2, 2)


def test_streamed_body_is_not_held_back() -> None:
    """All but the last brace goes out at once, whatever the length."""
    edit = StreamedEdit(VLLM, CHAT)
    sent = edit.feed(b'{"stream":true,"messages":"')
    for _ in range(100):
        piece = b"x" * 10_000
        assert edit.feed(piece) == piece
    sent = edit.feed(b'"}  \n')
    assert sent == b'"'
    assert edit.finish() == b',"stream_options":{"include_usage":true,"continuous_usage_stats":true}}  \n'


def test_endless_blanks_behind_the_object_take_no_memory() -> None:
    """Behind the closing brace nothing must pile up while we wait for the end."""
    edit = StreamedEdit(VLLM, CHAT)
    edit.feed(b'{"stream":true}')
    for _ in range(1000):
        edit.feed(b" " * 1000)
    assert len(edit._held) < 200_000


def test_endless_stream_options_take_no_memory() -> None:
    """A value that is too long to be options goes on its way."""
    edit = StreamedEdit(VLLM, CHAT)
    edit.feed(b'{"stream":true,"stream_options":"')
    for _ in range(1000):
        edit.feed(b"x" * 1000)
    assert len(edit._held) < 20_000


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ('{"max_output_tokens":7}', 7),  # Responses
        ('{"n_predict":7}', 7),  # llama.cpp
        ('{"n_predict":-1}', 0),
        ('{"parameters":{"max_new_tokens":7}}', 7),  # TGI
        ('{"sampling_params":{"max_new_tokens":7,"temperature":0}}', 7),  # SGLang
        ('{"options":{"num_predict":7}}', 7),  # Ollama
        ('{"options":{"num_predict":-2}}', 0),
        ('{"parameters":null}', 0),
        ('{"parameters":[7]}', 0),
        ('{"parameters":{"max_new_tokens":7},"max_tokens":9}', 9),
    ],
)
def test_max_tokens_of_other_engines(body: str, most: int) -> None:
    """Under the names that they have for it; the same of a body in pieces."""
    read = usage_request.read(body.encode())
    assert read is not None
    assert read[0].max_tokens == most
    _, edit = streamed([body[:9].encode(), body[9:].encode()])
    assert edit.facts().max_tokens == most


@pytest.mark.parametrize(
    ("path", "body", "stream"),
    [
        ("/generate_stream", "{}", True),
        ("/generate", "{}", False),
        ("/api/chat", "{}", True),
        ("/api/chat", '{"stream":false}', False),
        ("/api/generate", '{"stream":null}', True),
        ("/v1/chat/completions", "{}", False),
    ],
)
def test_routes_that_stream_unasked(path: str, body: str, stream: bool) -> None:
    """TGI's always does, Ollama's unless told not to."""
    read = usage_request.read(body.encode(), path)
    assert read is not None
    assert read[0].stream is stream


@pytest.mark.parametrize(
    ("engine", "path", "asked"),
    [
        ("vllm", "/v1/chat/completions", '"stream_options":{"include_usage":true,"continuous_usage_stats":true}'),
        ("sglang", "/v1/completions", '"stream_options":{"include_usage":true,"continuous_usage_stats":true}'),
        ("tgi", "/v1/chat/completions", '"stream_options":{"include_usage":true}'),
        ("tgi", "/v1/completions", None),  # everybody gets usage there, and must see it
        ("tgi", "/invocations", None),
        ("trtllm", "/invocations", None),
        ("vllm", "/invocations", None),  # neither a chat nor a completion
        ("tgi", "/generate_stream", '"parameters":{"details":true}'),
        ("tgi", "/", '"parameters":{"details":true}'),
        ("vllm", "/generate_stream", None),
        ("llamacpp", "/v1/chat/completions", None),
        ("ollama", "/v1/chat/completions", None),
        ("transformers", "/v1/chat/completions", None),
        ("openai", "/v1/chat/completions", None),
        ("unknown", "/v1/chat/completions", None),
        ("unknown", "/generate_stream", None),
    ],
)
def test_an_engine_is_asked_for_what_its_profile_allows(engine: str, path: str, asked: str | None) -> None:
    """One member is spliced in, and nothing of what an engine might refuse."""
    body = b'{"stream":true}'
    edit = usage_request.asking(PROFILES[engine], path, body, None)
    if asked is None:
        assert edit is None
    else:
        assert edit is not None
        assert edit.apply(body) == b'{"stream":true,%b}' % asked.encode()


@pytest.mark.parametrize("profile", [VLLM, SGLANG])
@pytest.mark.parametrize("key", ["messages", "prompt"])
def test_what_generates_on_sagemakers_route_is_asked_for_usage(profile: Profile, key: str) -> None:
    """At hand or in pieces; the other bodies that it takes have no stream."""
    body = b'{"%b":"x","stream":true}' % key.encode()
    wanted = b'{"%b":"x","stream":true,"stream_options":%b}' % (
        key.encode(),
        json.dumps(BOTH, separators=(",", ":")).encode(),
    )
    edit = usage_request.asking(profile, "/invocations", body, None)
    assert edit is not None
    assert (edit.apply(body), edit.hide) == (wanted, Hide.ALL)
    pieces = StreamedEdit(profile, "/invocations")
    assert (pieces.feed(body) + pieces.finish(), pieces.hide) == (wanted, Hide.ALL)
    other = StreamedEdit(profile, "/invocations")
    assert (other.feed(b'{"stream":true}') + other.finish(), other.hide) == (b'{"stream":true}', None)


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"model":"m","stream":true,"x":NaN}', b'{"model":"m","stream":true,"x":NaN,"stream_options":%b}'),
        (
            b'{"model":"m","stream":true,"x":[-Infinity]} ',
            b'{"model":"m","stream":true,"x":[-Infinity],"stream_options":%b} ',
        ),
        (
            b'{"model":"m","stream":true,"x":"\\ud83d"}',
            b'{"model":"m","stream":true,"x":"\\ud83d","stream_options":%b}',
        ),
        (
            b'{"model":"m","stream_options":{},"stream":true,"x":NaN}',
            b'{"model":"m","stream_options":%b,"stream":true,"x":NaN}',
        ),
        (
            b'{"model":"m","stream_options":null,"stream":true,"x":"\xed\xa0\xbd"}',
            b'{"model":"m","stream_options":%b,"stream":true,"x":"\xed\xa0\xbd"}',
        ),
        (
            b'\xef\xbb\xbf{"model":"m","stream":true,"x":NaN}',
            b'\xef\xbb\xbf{"model":"m","stream":true,"x":NaN,"stream_options":%b}',
        ),
    ],
)
def test_what_only_pythons_parser_takes_is_read_and_asked_for(body: bytes, sent: bytes) -> None:
    """As an engine in Python does; every byte but ours is the client's."""
    read = usage_request.read(body)
    assert read is not None
    assert (read[0].model, read[0].stream) == ("m", True)
    edit = usage_request.asking(VLLM, CHAT, body, read[1])
    assert edit is not None
    assert edit.apply(body) == sent % b'{"include_usage":true,"continuous_usage_stats":true}'


WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("encoding", WIDE)
def test_what_is_not_utf_8_is_read_and_asked_for(encoding: str) -> None:
    """Engines in Python take it; what is spliced in is in the body's encoding."""
    text = '{"model":"m","stream":true,"n":2,"max_tokens":7,"parameters":{"max_new_tokens":9},"prompt":["a","b"]}'
    body = text.encode(encoding)
    read = usage_request.read(body)
    assert read is not None
    assert read[0] == usage_request.Facts("m", True, 4, 2, 9)
    for path in (CHAT, "/invocations"):
        edit = usage_request.asking(VLLM, path, body, read[1])
        assert edit is not None
        assert json.loads(edit.apply(body)) == {**json.loads(text), "stream_options": BOTH}
        assert edit.hide is Hide.ALL
    assert usage_request.asking(TGI, "/generate_stream", body, read[1]) is None


@pytest.mark.parametrize("encoding", WIDE)
@given(body=bodies())
def test_the_edit_is_the_same_in_any_encoding(encoding: str, body: bytes) -> None:
    """As Python's parser reads it."""
    wide = body.decode().lstrip("\ufeff").encode(encoding)
    plain, read = usage_request.read(body), usage_request.read(wide)
    assert plain is not None
    assert read is not None
    assert read[0] == plain[0]
    edit = usage_request.asking(VLLM, CHAT, body, plain[1])
    other = usage_request.asking(VLLM, CHAT, wide, read[1])
    assert (edit.hide if edit else None) is (other.hide if other else None)
    if edit is not None and other is not None:
        assert json.loads(other.apply(wide)) == json.loads(edit.apply(body))


@given(bodies())
def test_both_parsers_read_the_same(body: bytes) -> None:
    """A member that ours refuses changes nothing about the others, but for characters in pairs of surrogates."""
    plain = usage_request.read(body)
    odd = body.replace(b"{", b'{"odd":NaN,', 1)
    assert plain is not None
    read = usage_request.read(odd)
    assert read is not None
    assert msgspec.structs.replace(read[0], model="") == msgspec.structs.replace(plain[0], model="")
    assert read[0].model == plain[0].model or b"\\ud" in body
    edit, other = (usage_request.edit(text, found[1], VLLM) for text, found in ((body, plain), (odd, read)))
    assert (edit is None) == (other is None)
    if edit is not None and other is not None:
        assert other.apply(odd) == edit.apply(body).replace(b"{", b'{"odd":NaN,', 1)


@pytest.mark.parametrize("odd", ["NaN", '"\\ud83d"'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_long_body_that_only_python_takes(odd: str, encoding: str) -> None:
    """Its members are found without that parser, which would keep the loop."""
    text = f'{{"model":"m","stream":true,"odd":{odd},"prompt":[{"1," * 50_000}1]}}'
    read = usage_request.read(text.encode(encoding))
    assert read == (usage_request.Facts("m", stream=True), None)
    edit = usage_request.asking(VLLM, "/v1/completions", text.encode(encoding), None)
    assert edit is not None
    sent = json.loads(edit.apply(text.encode(encoding)))
    assert sent["stream_options"] == BOTH


@pytest.mark.parametrize("end", ["", "}x", "}}", "]"])
def test_a_long_body_that_is_no_json_is_left_alone(end: str) -> None:
    """The engine says what is wrong."""
    assert (
        usage_request.read(f'{{"model":"m","stream":true,"odd":NaN,"prompt":[{"1," * 50_000}1]{end}'.encode()) is None
    )


def test_a_models_name_can_be_written_down() -> None:
    """A lone surrogate could not; it is some other character."""
    read = usage_request.read(b'{"model":"m\\ud83d"}')
    assert read is not None
    assert read[0].model.encode().startswith(b"m")


@pytest.mark.parametrize(
    ("profile", "options", "hide"),
    [
        (SGLANG, "{}", Hide.ALL),
        (SGLANG, '{"include_usage":"f"}', Hide.ALL),
        (SGLANG, '{"continuous_usage_stats":true}', None),  # it is given the counts, and the client wants them
        (SGLANG, '{"include_usage":false,"continuous_usage_stats":1}', None),
        (TRTLLM, "{}", Hide.CONTINUOUS),  # asks for usage
        (TRTLLM, '{"include_usage":0}', Hide.ALL),
        (TGI, "{}", None),
        (TGI, '{"include_usage":0}', None),  # refused
    ],
)
def test_what_options_mean_is_the_engines_to_say(profile: Profile, options: str, hide: Hide | None) -> None:
    """Left out, or written in another way."""
    body = b'{"stream":true,"stream_options":%b}' % options.encode()
    edit = usage_request.asking(profile, CHAT, body, options.encode())
    assert (edit.hide if edit else None) is hide


@pytest.mark.parametrize(
    ("options", "sent", "hide"),
    [
        ("null", {"include_usage": True}, Hide.ALL),
        ('{"include_usage":false}', {"include_usage": True}, Hide.ALL),
        ('{"include_usage":true}', None, None),
    ],
)
def test_where_only_usage_is_asked_for(options: str, sent: dict[str, Any] | None, hide: Hide | None) -> None:
    """TGI has no continuous usage: who asked for usage has all there is."""
    body = b'{"stream":true,"stream_options":%b}' % options.encode()
    edit = usage_request.asking(TGI, CHAT, body, options.encode())
    if sent is None:
        assert edit is None
    else:
        assert edit is not None
        assert json.loads(edit.apply(body))["stream_options"] == sent
        assert edit.hide is hide


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ("{}", '{"parameters":{"details":true}}'),
        ('{"inputs":"x"}', '{"inputs":"x","parameters":{"details":true}}'),
        ('{"inputs":"x","parameters":null }', '{"inputs":"x","parameters":{"details":true} }'),
        ('{"parameters":{} ,"inputs":"x"}', '{"parameters":{"details":true} ,"inputs":"x"}'),
        ('{"parameters":{"top_k":1}}', '{"parameters":{"top_k":1,"details":true}}'),
        ('{"parameters":{"details":false,"top_k":1}}', '{"parameters":{"details":true,"top_k":1}}'),
        ('{"parameters":{"details":null}}', '{"parameters":{"details":true}}'),
        ('{"parameters":{"details":true}}', None),
        ('{"parameters":{"details":"yes"}}', None),
        ('{"parameters":[1]}', None),
        ('{"parameters":{"a":"}"},"x":"parameters"}', '{"parameters":{"a":"}","details":true},"x":"parameters"}'),
        ("[1]", None),
        ('{"a":', None),
    ],
)
def test_details_are_spliced_into_the_parameters(body: str, sent: str | None) -> None:
    """One member more, and every other byte the client's."""
    edit = usage_request.details_edit(body.encode())
    assert (edit.apply(body.encode()).decode() if edit else None) == sent


@given(bodies())
def test_details_change_nothing_else(body: bytes) -> None:
    """Whatever the body is."""
    edit = usage_request.details_edit(body)
    if edit is not None:
        before, after = json.loads(body), json.loads(edit.apply(body))
        assert after.pop("parameters") == {**(before.pop("parameters", None) or {}), "details": True}
        assert after == before
