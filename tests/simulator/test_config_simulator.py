"""The simulator's settings."""

import math
import socket
from typing import Any

import msgspec
import pytest

from inferwatch import cli
from inferwatch_simulator.config import SimulatorConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "eliza"}, "engine: 'eliza' is not simulated, expected one of "),
        ({"speed": 0}, "speed: 0 must be above 0"),
        ({"speed": math.nan}, "speed: nan is no number"),
        ({"decode_step_ms_base": math.inf}, "decode_step_ms_base: inf is no number"),
        ({"sse_keep_alive_interval_s": math.nan}, "sse_keep_alive_interval_s: nan is no number"),
        ({"port": 99999}, "port: 99999 must not be above 65535"),
        ({"decode_step_ms_base": -1}, "decode_step_ms_base: -1 must not be negative"),
        ({"kv_tokens": 1000}, "kv_tokens: 1000 cannot hold one sequence of max_model_len 32768"),
        ({"sse_keep_alive_interval_s": 0}, "sse_keep_alive_interval_s: 0 must be above 0"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    """One line that names the setting and what is wrong with it."""
    with pytest.raises(ValueError, match=message):
        SimulatorConfig(**options)


def test_unknown_settings_are_refused() -> None:
    """A misspelt key does not pass silently."""
    with pytest.raises(msgspec.ValidationError, match="sped"):
        msgspec.convert({"sped": 2}, SimulatorConfig)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.1", "Address already in use"),
        ("nosuch.invalid", "Name or service not known"),
        ("a..b", "that is no host's name"),
    ],
)
def test_an_address_that_cannot_be_listened_on(host: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Is one line, and 1: another time it may be free."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["simulate", "--host", host, "--port", str(port)]) == 1
    assert capsys.readouterr().err == f"inferwatch: simulate: cannot listen on {host}:{port}: {reason}\n"
