"""Everything that no dialect reads: time and bytes only."""

from typing import Final

from inferwatch_collectors.dialects.base import Dialect

UNKNOWN: Final = Dialect()
