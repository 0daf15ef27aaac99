"""What is remembered of tenants through a restart: one memo each.

One is written an hour, so a collector that is killed loses at most that hour: the hour in which it died is not seen
whole and would not be learnt anyway.
"""

from typing import Final

import msgspec

from inferwatch_collectors.anomalies.tenant import Tenant, TenantState
from inferwatch_collectors.memo_places import MemoPlaces
from inferwatch_collectors.metric_store import MetricStore

NAME: Final = "anomalies"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(TenantState).decode


class Memory:
    """Writes and reads the memos. Not more places than tenants at a time."""

    def __init__(self, store: MetricStore) -> None:
        self._places = MemoPlaces[str](store, NAME)  # by label

    @property
    def damaged(self) -> int:
        """Memos that could not be read."""
        return self._places.damaged

    def read(self, now_s: float, most: int) -> list[Tenant]:
        """Return up to `most` tenants that an earlier life left; what cannot be read, or is too much, is forgotten."""
        return self._places.read(lambda data: Tenant.of(_decode(data), now_s), lambda tenant: tenant.label, most)

    def write(self, tenant: Tenant) -> None:
        """Write down what is known of `tenant`."""
        self._places.write(tenant.label, _encode(tenant.state()))

    def forget(self, label: str) -> None:
        """Nothing is known of this tenant any more."""
        self._places.forget(label)
