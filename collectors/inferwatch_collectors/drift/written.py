"""Numbers of what is written down, each within what it can ever be: what is beyond that is damaged, and is refused when
it is read. NaN is beyond everything."""

from typing import Annotated, Final

import msgspec

# Sixty years of a vote a second. There is room above it in 32 bits, so that what was read can go on counting.
MAX_COUNT: Final = 2**31
# Seconds: to 1697 and 2242. A wall clock that was set back may have left a moment before 1970.
MAX_S: Final = 2**33
# A feature has 13 edges at most (`bins.cut`); another version may have more quantiles.
MAX_EDGES: Final = 64
# The values that make them have 32 bits.
MAX_EDGE: Final = 2.0**128
# A logarithm of a time is no more than 745, one of a count 44; of so many votes as make a pace they come to 1e7, and
# its line to 1e8.
MAX_SUM: Final = 1e9

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
UnixTime = Annotated[int, msgspec.Meta(ge=-MAX_S, le=MAX_S)]
UnixMoment = Annotated[float, msgspec.Meta(ge=-MAX_S, le=MAX_S)]
Span = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_S)]
Share = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
Sum = Annotated[float, msgspec.Meta(ge=-MAX_SUM, le=MAX_SUM)]
Distance = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_SUM)]
Edges = Annotated[
    tuple[Annotated[float, msgspec.Meta(ge=-MAX_EDGE, le=MAX_EDGE)], ...], msgspec.Meta(max_length=MAX_EDGES)
]
