"""Faults on demand: what a request can ask for with the header `x-sim-fault`, to see how a proxy takes it.

`x-sim-fault: NAME`, `NAME:VALUE`, or several with commas between. The table below is the documentation, too:
`python -m inferwatch_simulator.faults` prints it.
"""

from typing import NamedTuple

import msgspec

HEADER = "x-sim-fault"


class Fault(NamedTuple):
    """One fault. `default` is None where a value must be given, and "" where none is taken."""

    name: str
    value: str
    default: str | None
    effect: str


FAULTS = (
    Fault("reset_before_head", "", "", "reset the connection (RST) before the response head"),
    Fault(
        "reset_mid_stream", "EVENTS", "3", "reset the connection after that many events (plain: after half the body)"
    ),
    Fault("reset_mid_event", "EVENTS", "3", "the same, after half of the next event as well"),
    Fault("cut_utf8", "EVENTS", "3", "close the connection in the midst of a multi-byte character of the next event"),
    Fault("split_utf8", "EVENTS", "3", "pause 20 ms in the midst of a multi-byte character of the next event, go on"),
    Fault("no_done", "", "", "leave out `data: [DONE]`; the response still ends properly"),
    Fault(
        "error_event",
        "EVENTS",
        "3",
        "after that many events fail as the engine does; vLLM: error event, `data: [DONE]`, at 200",
    ),
    Fault("hang_before_head", "", "", "never answer"),
    Fault("hang_mid_stream", "EVENTS", "3", "fall silent after that many events (plain: after half the body)"),
    Fault("garbage_head", "", "", "answer with bytes that are not HTTP, and close"),
    Fault("slow_head", "SECONDS", None, "send the response head that much later; the engine has not begun by then"),
    Fault("comments", "COUNT", "2", "that many keep-alive comments before the first event"),
    Fault("merge", "TOKENS", None, "that many tokens per chunk after the first, like `stream_interval`"),
    Fault("loop", "TOKENS", "12", "answer with its first so many tokens again and again"),
    Fault("refuse", "", "", "begin the answer as a refusal does"),
    Fault("status", "CODE", None, "refuse with that HTTP status, in the engine's error envelope"),
    Fault("one_byte_writes", "", "", "write the body one byte, one HTTP chunk, at a time"),
    Fault("big_event", "BYTES", None, "follow the first event with one of about that size, of log-probabilities"),
)
_BY_NAME = {fault.name: fault for fault in FAULTS}
_FRACTIONS = frozenset({"slow_head"})


class FaultPlan(msgspec.Struct, frozen=True):
    """The faults one request asked for, with their values; those without a value have 0."""

    values: dict[str, float] = {}

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def __bool__(self) -> bool:
        return bool(self.values)

    def get(self, name: str) -> int | None:
        """The value of a fault, or None if it was not asked for."""
        value = self.values.get(name)
        return None if value is None else int(value)

    @property
    def shapes_stream(self) -> bool:
        """Any that act on the events of a stream."""
        return bool(self.values.keys() - _HEAD_FAULTS)


# These are over when the response head is sent; `merge`, `loop` and `refuse` are done by
# the ordinary stream.
_HEAD_FAULTS = frozenset(
    {"reset_before_head", "hang_before_head", "garbage_head", "slow_head", "status", "merge", "loop", "refuse"}
)
NONE = FaultPlan()


def parse(header: str | None) -> FaultPlan:
    """Read the header.

    Raises:
        ValueError: an unknown fault, or a value that is missing or no number; the message says which.
    """
    if not header:
        return NONE
    values = {}
    for part in header.split(","):
        name, _, value = part.strip().partition(":")
        fault = _BY_NAME.get(name)
        if fault is None:
            raise ValueError(f"{HEADER}: no fault {name!r}, expected one of {', '.join(_BY_NAME)}")
        value = value or fault.default or ""
        if not value and fault.default is None:
            raise ValueError(f"{HEADER}: {name} needs a value, {name}:{fault.value}")
        values[name] = _number(fault, value)
    return FaultPlan(values)


def _number(fault: Fault, text: str) -> float:
    if not text:
        return 0
    try:
        number = float(text) if fault.name in _FRACTIONS else int(text)
    except ValueError:
        raise ValueError(f"{HEADER}: {fault.name} takes a number, got {text!r}") from None
    if not 0 <= number < float("inf"):
        raise ValueError(f"{HEADER}: {fault.name} takes a number from 0, got {text!r}")
    return number


def table() -> str:
    """All faults as text."""
    names = [f"{fault.name}:{fault.value}" if fault.value else fault.name for fault in FAULTS]
    width = max(map(len, names))
    lines = []
    for name, fault in zip(names, FAULTS, strict=True):
        default = f" (default {fault.default})" if fault.default else ""
        lines.append(f"{name:<{width}}  {fault.effect}{default}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
