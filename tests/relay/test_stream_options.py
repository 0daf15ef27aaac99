"""stream_options: what is sent in the place of the client's; `test_usage_request` has what each engine is asked."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.engines import SGLANG, TGI, TRTLLM, VLLM, Profile
from inferwatch.relay import stream_options
from inferwatch.relay.usage_filter import Hide

FLAGS = st.sampled_from([True, False, None, 0, 1, "no", "yes", 2, "x", []])
OPTIONS = st.fixed_dictionaries(
    {}, optional={"include_usage": FLAGS, "continuous_usage_stats": FLAGS, "x": st.integers(), "": st.text(max_size=3)}
)


@given(OPTIONS, st.sampled_from([VLLM, SGLANG, TRTLLM, TGI]), st.sampled_from([(",", ":"), (" , ", "\t: ")]))
def test_nothing_else_is_changed(options: dict[str, Any], profile: Profile, separators: tuple[str, str]) -> None:
    """What is sent has ours set, and every other member."""
    wish = stream_options.wish(json.dumps(options, separators=separators).encode(), profile)
    if wish is not None:
        sent = json.loads(wish[0])
        added = dict.fromkeys(("include_usage", "continuous_usage_stats")[: 1 if profile is TGI else 2], True)
        assert sent == {**options, **added}
        assert wish[1] in (Hide.ALL, Hide.CONTINUOUS)


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (b'{ "x" : 1.00 }', b'{ "x" : 1.00 ,"include_usage":true,"continuous_usage_stats":true}'),
        (b'{"x":NaN,"include_usage":false}', b'{"x":NaN,"include_usage":true,"continuous_usage_stats":true}'),
        (b'{"include_usage":0,"x":"\\ud800"}', b'{"include_usage":true,"x":"\\ud800","continuous_usage_stats":true}'),
        (
            b'{"continuous_usage_stats":false,"include_us\\u0061ge":false}',
            b'{"continuous_usage_stats":true,"include_us\\u0061ge":true}',
        ),
        (b"{}", b'{"include_usage":true,"continuous_usage_stats":true}'),
        (b'{"x":"%b"}' % (b"y" * 500), b'{"x":"%b","include_usage":true,"continuous_usage_stats":true}' % (b"y" * 500)),
    ],
)
def test_members_are_spliced_in(options: bytes, sent: bytes) -> None:
    """Byte for byte, also what could not be written back as it was."""
    assert stream_options.wish(options, VLLM) == (sent, Hide.ALL)


@given(st.binary(max_size=60))
def test_no_bytes_crash_it(options: bytes) -> None:
    """They come from clients."""
    for candidate in (options, b"{" + options, b'{"include_usage":' + options + b"}"):
        stream_options.wish(candidate, VLLM)


@pytest.mark.parametrize(
    ("profile", "path", "nothing"),
    [
        (TRTLLM, "/v1/completions", b',"usage":null'),
        (TRTLLM, "/v1/chat/completions", b""),
        (VLLM, "/v1/completions", b""),
    ],
)
def test_what_stands_in_the_place_of_a_usage(profile: Profile, path: str, nothing: bytes) -> None:
    """trtllm-serve's completions write a null, its chat leaves it out."""
    assert stream_options.nothing(profile, path) == nothing
