"""Numbers of what is written down, each within what it can ever be: what is beyond that is damaged, and is refused when
it is read. NaN is beyond everything."""

from typing import Annotated, Final

import msgspec

from inferwatch_collectors.anomalies.evidence import CEILING_WEEKS

# Requests, hours, steps: none of them is ever counted that far.
MAX_COUNT: Final = 2**31
# Nano-dollars or tokens, summed up: a billion dollars an hour for a year.
MAX_AMOUNT: Final = 1e22

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Weight = Annotated[float, msgspec.Meta(ge=0.0, le=float(MAX_COUNT))]
Amount = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_AMOUNT)]
Weeks = Annotated[float, msgspec.Meta(ge=0.0, le=CEILING_WEEKS)]
