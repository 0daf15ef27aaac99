"""What the relay has noted of an answer: it makes good for copies that are missing, or stands for all of them.

The notes are the engine's last usage of each choice, and the end of the body, in which most engines say how much they
generated and how it ended. An engine's counts are cumulative, so whichever is further holds, and what copies have shown
is not counted again. Events are no such counts: they are taken only where the end is the whole body, and there was no
copy of any of it. Times are never taken: the end has none.
"""

from collections.abc import Mapping
from typing import Final

from inferwatch.record import TokenSource
from inferwatch.tap import Close
from inferwatch_collectors.dialects.base import Dialect, Observation
from inferwatch_collectors.dialects.body import EventStream, RecordStream
from inferwatch_collectors.dialects.select import NDJSON, Selection
from inferwatch_collectors.dialects.timings import NO_TIMINGS

# A key of `Close.usages`: the usage of the whole answer.
FINAL_USAGE_KEY: Final = -1


def take_usages(seen: Observation, dialect: Dialect, noted: Mapping[int, bytes]) -> None:
    """Take the usages that the relay cut out, by the index of their choice."""
    for index, raw in noted.items():
        usage = dialect.read_usage(raw)
        if usage is None or usage.blank():
            continue
        if index == FINAL_USAGE_KEY:
            seen.final = usage if usage.further_than(seen.final) else seen.final
        elif (choice := seen.choice(index)) is not None and usage.further_than(choice.usage):
            choice.usage = usage
            choice.counted = True


def take_end(seen: Observation, selection: Selection, close: Close, *, streamed: bool, untold: bool) -> None:
    """Take from the end of the body how it ended, and what was counted. `untold`: there was no copy of any of it."""
    whole = len(close.tail) >= close.response_bytes
    last = _read(seen, selection, close, streamed=streamed, whole=whole)
    alone = whole and untold
    sure = not any(choice.guessed for choice in seen.choices.values())  # else one of these may be counted there
    for index, choice in last.choices.items():
        ours = seen.choice(index)
        if ours is None:
            continue
        ours.finish = ours.finish or choice.finish
        if sure and choice.usage is not None and not choice.guessed and choice.usage.further_than(ours.usage):
            ours.usage, ours.counted = choice.usage, choice.counted
        if alone:
            ours.events = choice.events
    if last.source is TokenSource.PARTIAL_USAGE and any(choice.usage is not None for choice in seen.choices.values()):
        last.final = last.source = None  # of a part; it is among those
    seen.final = seen.final or last.final
    seen.source = seen.source or last.source
    seen.done |= last.done
    seen.error |= last.error
    if alone:
        seen.refused = last.refused
        seen.own = last.own if seen.own is None else seen.own
    seen.reader = seen.reader or last.reader
    seen.engine_id = seen.engine_id or last.engine_id
    seen.engine_model = seen.engine_model or last.engine_model
    if seen.timings is NO_TIMINGS and len(seen.choices) <= 1:
        seen.timings = last.timings


def _read(seen: Observation, selection: Selection, close: Close, *, streamed: bool, whole: bool) -> Observation:
    """Return what stands in the end of the body."""
    dialect = selection.dialect
    last = Observation(seen.facts)
    last.reader = seen.reader
    if streamed:
        events = RecordStream(dialect, last) if selection.framing == NDJSON else EventStream(dialect, last)
        if not whole:
            events.gap()  # it begins anywhere
        events.feed(close.stamp_ns, close.tail)
        events.finish(close.stamp_ns)
    elif whole:
        dialect.read_reply(last, close.tail)
    else:
        dialect.read_reply_tail(last, close.tail)
    return last
