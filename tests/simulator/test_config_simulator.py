"""The simulator's settings."""

from typing import Any

import msgspec
import pytest

from inferwatch_simulator.config import SimulatorConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "eliza"}, "engine: 'eliza' is not simulated, expected one of "),
        ({"speed": 0}, "speed: 0 must be above 0"),
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
