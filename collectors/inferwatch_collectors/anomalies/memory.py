"""What is remembered of tenants through a restart: one memo each, in numbered places that are used again.

Memos are committed with the counters and the records. One is written an hour, so a collector that is killed loses at
most that hour: the hour in which it died is not seen whole and would not be learnt anyway.
"""

from typing import Final

import msgspec

from inferwatch_collectors.anomalies.tenant import Tenant, TenantState
from inferwatch_collectors.metric_store import MetricStore

NAME: Final = "anomalies"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(TenantState).decode


class Memory:
    """Writes and reads the memos. Not more places than tenants at a time."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._places: dict[str, int] = {}  # by label
        self._free: list[int] = []

    def read(self, now_s: float, most: int) -> list[Tenant]:
        """Return up to `most` tenants that an earlier life left; what cannot be read, or is too much, is forgotten."""
        found: list[Tenant] = []
        for memo in self._store.memos(NAME):
            tenant = _read(memo.data, now_s) if len(found) < most else None
            place = int(memo.labels[0])
            if tenant is None or tenant.label in self._places:
                memo.set(b"")
                self._free.append(place)
            else:
                self._places[tenant.label] = place
                found.append(tenant)
        return found

    def write(self, tenant: Tenant) -> None:
        """Write down what is known of `tenant`."""
        place = self._places.get(tenant.label)
        if place is None:
            place = self._free.pop() if self._free else len(self._places)
            self._places[tenant.label] = place
        self._store.memo(NAME, (str(place),)).set(_encode(tenant.state()))

    def forget(self, label: str) -> None:
        """Nothing is known of this tenant any more."""
        place = self._places.pop(label, None)
        if place is not None:
            self._store.memo(NAME, (str(place),)).set(b"")
            self._free.append(place)


def _read(data: bytes, now_s: float) -> Tenant | None:
    if not data:
        return None
    try:
        return Tenant.of(_decode(data), now_s)
    except (msgspec.DecodeError, ValueError):
        return None
