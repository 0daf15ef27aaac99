"""The control channel: one JSON object a line, and its end is the end of the peer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferwatch.control import MAX_LINE_BYTES, Channel


class Ends(NamedTuple):
    """A channel and the bare socket on its other side."""

    channel: Channel
    peer: socket.socket


@pytest.fixture(name="ends")
async def _ends() -> AsyncIterator[Ends]:
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    channel = await Channel.over(ours)
    yield Ends(channel, peer)
    channel.close()
    peer.close()
    await asyncio.sleep(0)


async def received(channel: Channel) -> list[dict[str, Any]]:
    """All messages until the other end is gone."""
    async with asyncio.timeout(5):
        return [message async for message in channel.messages()]


async def say(ends: Ends, *data: bytes) -> None:
    """Write raw bytes to the channel, and hang up."""
    loop = asyncio.get_running_loop()
    for part in data:
        await loop.sock_sendall(ends.peer, part)
        await asyncio.sleep(0)
    ends.peer.shutdown(socket.SHUT_WR)


async def test_what_is_sent_arrives_in_order() -> None:
    """Two channels on one pair understand each other, both ways."""
    left_socket, right_socket = socket.socketpair()
    left, right = await Channel.over(left_socket), await Channel.over(right_socket)
    sent = [{"ready": True}, {"config": {"listen": "[::1]:1", "text": "line\nbreak é"}}, {"beat": 3}]
    for message in sent:
        left.send(message)
    left.close()

    assert sent == await received(right)
    right.close()


async def test_a_message_is_one_line_of_json(ends: Ends) -> None:
    """A line break inside a value is escaped: the line is the frame."""
    ends.channel.send({"reloaded": "two\nlines"})

    line = await asyncio.get_running_loop().sock_recv(ends.peer, 1000)

    assert line == b'{"reloaded":"two\\nlines"}\n'


async def test_a_message_may_come_in_any_pieces(ends: Ends) -> None:
    """The socket cuts where it likes."""
    await say(ends, b'{"be', b'at"', b": 1}", b'\n{"drain": true}\n')

    assert await received(ends.channel) == [{"beat": 1}, {"drain": True}]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not json", id="no JSON"),
        pytest.param(b"[1, 2]", id="a list"),
        pytest.param(b"3", id="a number"),
        pytest.param(b'{"a": 1', id="unfinished"),
        pytest.param(b'{"a": 1} {"b": 2}', id="two objects"),
        pytest.param(b"\xff\xfe\x00", id="no text"),
        pytest.param(b"[" * 2000, id="nested"),
    ],
)
async def test_a_line_that_is_no_message_is_passed_over(ends: Ends, line: bytes) -> None:
    """A stray line (a library that prints to every descriptor) does not end the child's life."""
    await say(ends, line + b"\n", b'{"beat": 2}\n')

    assert await received(ends.channel) == [{"beat": 2}]


async def test_an_endless_line_ends_the_channel(ends: Ends) -> None:
    """More than MAX_LINE_BYTES without a line break is not our peer; nothing of it is kept."""
    task = asyncio.ensure_future(received(ends.channel))
    await say(ends, b"x" * (MAX_LINE_BYTES + 65536), b'\n{"beat": 2}\n')

    assert await task == []


async def test_the_last_message_counts_though_its_sender_is_gone(ends: Ends) -> None:
    """A child that says something and dies at once has been heard."""
    await say(ends, b'{"reload": true}\n')

    assert await received(ends.channel) == [{"reload": True}]


async def test_an_unfinished_last_line_is_no_message(ends: Ends) -> None:
    """A child that is killed in the middle of a line has not said it."""
    await say(ends, b'{"ready": true}\n{"bea')

    assert await received(ends.channel) == [{"ready": True}]


async def test_sending_to_a_dead_peer_is_no_error(ends: Ends) -> None:
    """Who sends does not find out; who reads does, by the end of the messages."""
    ends.peer.close()
    for beat in range(10):
        ends.channel.send({"beat": beat})
        await asyncio.sleep(0)

    assert await received(ends.channel) == []


async def test_sending_after_close_is_no_error(ends: Ends) -> None:
    """A chore that runs once more after the end finds nothing to break."""
    ends.channel.close()
    ends.channel.send({"beat": 1})
    await asyncio.sleep(0)

    assert ends.peer.recv(100) == b""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=6), json_values, max_size=3), max_size=4), st.integers(1, 40))
async def test_every_json_object_goes_through_in_pieces_of_any_size(messages: list[dict[str, Any]], size: int) -> None:
    """What JSON can say, the channel can carry."""
    ours, peer = socket.socketpair()
    channel = await Channel.over(ours)
    with peer:
        data = b"".join(msgspec.json.encode(message) + b"\n" for message in messages)
        peer.setblocking(False)
        await say(Ends(channel, peer), *[data[start : start + size] for start in range(0, len(data), size)])
        assert messages == await received(channel)
    channel.close()
