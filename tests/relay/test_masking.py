"""What lies on disk without a collector counts the same and says nothing."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.relay.masking import masked, masked_batch, masked_close, masked_open
from inferwatch.tap import Close, Open

EVENT = '{"id":"chatcmpl-ann","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"ann"},"finish_reason":%s}]}'


def opened(path: str, headers: dict[str, str]) -> Open:
    return Open(
        id=1, request_id="r", wall_ns=1, arrival_ns=1, sent_ns=2, method="POST", path=path, tenant="t", model="m",
        stream=True, asked_usage=False, choices=1, headers=headers, body=b"ann", body_bytes=3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v2/models/llama-3.1/generate", "/v2/models/-/generate"),
        ("/v1/chat/completions/ann%40example.com", "/v1/chat/completions/-"),
        ("/v1/responses/ann@example.com\n", "/v1/responses/-"),
        ("/v1beta/models/x:generateContent", "/v1beta/models/-"),
        ("/", "/"),
    ],
)
def test_a_path_keeps_the_words_of_the_api(path: str, written: str) -> None:
    """Which dialect it is, is in them; anything else may be anything."""
    assert masked_open(opened(path, {})).path == written


def test_headers_that_clients_write_and_bodies_are_not_written() -> None:
    """Who calls, and with which id."""
    made = masked_open(
        opened("/v1/completions", {"user-agent": "ann", "x-request-id": "ann", "content-type": "a/json"})
    )

    assert made.headers == {"content-type": "a/json"}
    assert made.body == b""


def test_a_stream_keeps_its_ends_and_counts() -> None:
    """Of the length that it had, from the first whole line on."""
    usage = 'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
    lines = ['nt":"ann"}}]}', "data: " + EVENT % "null", "data: " + EVENT % '"stop"', usage, "data: [DONE]", "", ""]

    made = masked("\n".join(lines).encode(), whole=False).decode().split("\n")

    assert [len(line) for line in made] == [len(line) for line in lines[1:]]
    assert "ann" not in "".join(made)
    assert json.loads(made[1][6:])["choices"] == [{"index": 0, "delta": {"content": "   "}, "finish_reason": "stop"}]
    assert made[2:] == lines[3:]


def test_a_plain_reply_keeps_its_shape() -> None:
    """Its lengths, its counts, how it finished."""
    body = json.dumps(
        {
            "choices": [{"index": 4, "message": {"content": 'a "quoted" ann\n'}, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 4},
        },
        indent=1,
    )

    made = masked(body.encode(), whole=True)

    assert len(made) == len(body.encode())
    assert b"ann" not in made
    assert json.loads(made)["choices"][0]["finish_reason"] == "length"
    assert json.loads(made)["choices"][0]["index"] == 4
    assert json.loads(made)["usage"] == {"prompt_tokens": 4}


def test_the_end_of_a_long_plain_reply_keeps_its_figures() -> None:
    """Without them its tokens would be missing from the books; nothing else of it can be told from a text."""
    end = 'ann 44"},"finish_reason":"stop","n":44}],"usage": {"completion_tokens":7,"user":"ann","details":[44]}}'
    half = b'eval_count":1,"usage":{"prompt_tokens":1\n\0,"completion_tokens":2}},"eval_count":44\n\x00"}'

    assert masked(end.encode(), whole=False) == b'"finish_reason":"stop","usage":{"completion_tokens":7,"details":[]}}'
    assert masked(half, whole=False) == b"", "a hole is in both"


@pytest.mark.parametrize("name", ["code", "index", "status_code", "http_status_code"])
@pytest.mark.parametrize("value", ["4111111111111111", "[4111111111111111]", '{"usage":{"NAME":4111111111111111}}'])
def test_in_the_end_of_a_plain_reply_a_tool_s_numbers_are_not_figures(name: str, value: str) -> None:
    """What encloses a member is in the part that is missing: it may be the input of a tool, with anybody's number."""
    spoken = f'{{"meta":{{"{name}":{value.replace("NAME", name)}}}}}'
    end = f'ann"}},{{"type":"tool_use","input":{spoken}}}],"usage":{{"input_tokens":7,"output_tokens":9}}}}'

    made = masked(end.encode(), whole=False)

    assert b"4111" not in made
    assert json.loads(b"{" + made)["usage"] == {"input_tokens": 7, "output_tokens": 9}


@pytest.mark.parametrize("name", ["usage", "timings", "meta", "meta_info"])
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("replies", [1, 2])
def test_what_a_tool_calls_usage_is_not_the_reply_s(name: str, depth: int, replies: int) -> None:
    """Only a member of the whole reply is: of a lone one, or of one of a list. A bracket in a text is none."""
    spoken = f'{{"{name}":{{"prompt_tokens":4111111111111111}},"eval_count":4111111111111111,"note":"}}]}} \\" {{"}}'
    for _ in range(depth):
        spoken = f'{{"inner":{spoken},"eval_duration":4111111111111111}}'
    reply = f'{{"content":[{{"type":"tool_use","input":{spoken}}}],"{name}":{{"prompt_tokens":7}},"eval_count":9,"note":"{{"}}'
    body = reply if replies == 1 else f"[{','.join([reply] * replies)}]"

    made = masked(("ann" + body[body.index('"type"') :] + "\n").encode(), whole=False).decode()

    assert "4111" not in made
    assert made.count(f'"{name}":{{"prompt_tokens":7}},"eval_count":9') == replies
    assert made[-1] == body[-1]


def test_of_a_reply_that_broke_off_no_count_is_kept() -> None:
    """How deep it stands is not known; nor is it behind a hole. How it finished is a word of the API's own."""
    end = 'ann","finish_reason":"stop","input":{"usage":{"prompt_tokens":4111}}'
    hole = b'ann,"input":{"usage":{"prompt_tokens":4111}},"a\n\0b":1},"eval_count":2}'

    assert masked(end.encode(), whole=False, ended=False) == b'"finish_reason":"stop"}'
    assert masked(hole, whole=False) == b'"eval_count":2}'
    close = Close(
        id=1, stamp_ns=9, outcome="client_abort", error="", status=200, response_bytes=9_999, tail=end.encode()
    )
    assert masked_close(close).tail == b'"finish_reason":"stop"}'


NAMES = st.sampled_from(["usage", "prompt_tokens", "meta", "eval_count", "finish_reason", "a{", "b]"])
LEAVES = st.integers(1, 9) | st.text('a{}[]"\\')


@given(
    st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner)),
    st.integers(0, 400),
)
def test_wherever_it_begins_only_members_of_the_whole_reply_are_kept(spoken: object, cut: int) -> None:
    """Whatever a tool's input is, in whatever form."""
    body = json.dumps({"content": [{"input": spoken}], "usage": {"prompt_tokens": 44}, "rest": {"usage": spoken}})
    begin = min(cut, body.index('}], "usage": {"prompt_tokens": 44}'))

    made = masked(body[begin:].encode(), whole=False)

    assert re.findall(rb"\d+", made) == [b"44"]


def test_arguments_of_a_tool_are_not_the_api_s_words() -> None:
    """Members of any names, with the APIs' own words in them, and numbers that are somebody's."""
    spoken = {"ann": "failed", "status": "completed", "phone": 4915112345678, "at": -1.1234567890123, "index": 44}
    calls = [{"type": "tool_use", "input": spoken}, {"type": "text", "tool_calls": [{"arguments": spoken}]}]
    body = json.dumps({"type": "message", "content": calls, "usage": {"input_tokens": 1234567890}})

    made = json.loads(masked(body.encode(), whole=True))

    assert made["type"] == "message"
    assert made["usage"] == {"input_tokens": 1234567890}
    assert made["content"] == [{"type": "tool_use"}, {"type": "text", "tool_calls": [{"arguments": None}]}]


def test_what_encodes_a_text_is_not_written() -> None:
    """Ids of tokens, a vector, a number in place of a text; a count that is a tensor is a count."""
    body = {"tokens": [77, 14], "content": 4915112345678, "data": [{"embedding": [0.25]}], "output_token_count": [3]}

    made = json.loads(masked(json.dumps(body).encode(), whole=True))

    assert made == {"tokens": [], "content": None, "output_token_count": [3]}
    assert masked(b"[[0.25,0.5],[77]]", whole=True).strip() == b"[[],[]]"


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "[ann] is ill",
        "{ann}",
        '{"text":"a"} ann',
        '{"text":"a"ann}',
        '{"index":ann}',
        "[ann\n]",
        '["a\\\nann","b"]',
        "data: {ann",
        "event: ann",
        "retry: 4915112345678",
        '{"text":' + "[" * 5000 + '"ann"' + "]" * 5000 + "}",
    ],
)
def test_a_text_that_looks_like_json_is_not_written(text: str, whole: bool) -> None:
    """An answer of plain text may begin with anything."""
    made = masked(("\n" + text).encode(), whole=whole)

    assert not re.search(rb"ann|ill|4915112345678", made)


def test_unknown_words_are_unknown() -> None:
    """No blanks where a reader would take them for a word, an id or a model."""
    body = {"id": "ann", "model": "ann", "choices": [{"finish_reason": "ann"}, {"finish_reason": ""}]}

    made = json.loads(masked(json.dumps(body).encode(), whole=True))

    assert made == {"choices": [{"finish_reason": None}, {"finish_reason": ""}]}


def test_what_is_no_json_is_not_written() -> None:
    """Plain text, events of names of their own."""
    assert b"ann" not in masked(b"ann says\nevent: Ann\nid: ann\ndata: ann\n: ann", whole=True)
    assert masked(b"event: message_stop\n", whole=True) == b"event: message_stop\n"


def test_one_that_cannot_be_masked_is_written_without_what_was_said() -> None:
    """Members in members, more than the stack has room for: its counts are booked, and so are the others."""
    # Of as many as are decoded: how many that are is another number from version to version of Python.
    nested = b"ann" + b"".join(b',"meta":' + b'{"meta":' * deep + b"1" + b"}" * deep for deep in (700, 1500)) + b"}"
    request = opened("/v1/Ann", {"content-type": "a/json"})
    closes = [
        Close(
            id=1, stamp_ns=9, outcome="ok", error="", status=200, response_bytes=99_999, usages={-1: b"{}"}, tail=tail
        )
        for tail in (b'ann,"eval_count":7}', nested, b'ann,"eval_count":8}')
    ]

    batch, faults = masked_batch([(request, close) for close in closes])

    assert faults == ["RecursionError"]
    assert [frame.tail for frame in batch.closes] == [b'"eval_count":7}', b"", b'"eval_count":8}']
    assert [(frame.path, frame.headers) for frame in batch.opens] == [
        ("/v1/-", {"content-type": "a/json"}),
        ("", {}),
        ("/v1/-", {"content-type": "a/json"}),
    ]
    assert {frame.body for frame in batch.opens} == {b""}
    assert [frame.usages for frame in batch.closes] == [{-1: b"{}"}] * 3


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "Z")), min_size=8), st.sampled_from([True, False]))
def test_no_text_gets_through(text: str, ascii_only: bool) -> None:
    """Whatever it is, however it is escaped."""
    value = "Ann" + text
    said = {"content": value, "type": value, "status": value.lower()}
    line = b"data: " + json.dumps(said, ensure_ascii=ascii_only).encode()
    close = Close(id=1, stamp_ns=9, outcome="ok", error="", status=200, response_bytes=len(line), tail=line)

    assert b"ann" not in masked_close(close).tail.lower()
    assert set(json.loads(masked_close(close).tail[6:])["content"]) <= {" "}
