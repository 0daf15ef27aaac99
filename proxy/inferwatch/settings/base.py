"""What the sections share."""

from typing import Annotated, Final

from msgspec import Meta

# A year stands for "never" everywhere; infinity would overflow timers.
MAX_SECONDS: Final = 31_536_000

Seconds = Annotated[float, Meta(gt=0, le=MAX_SECONDS)]
Count = Annotated[int, Meta(ge=1)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
