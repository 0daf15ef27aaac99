"""The keys of pseudonyms: a file of them, and what is derived for each tenant and epoch.

A line of the file is `ID KEY`: a short name, and at least 32 random bytes in hex or base64; lines that begin with `# `
are remarks. The last line is used for new pseudonyms, those above it still tell where old ones are from. To rotate,
append a line. To make old pseudonyms meaningless for ever, delete theirs.

A pseudonym's own key is derived (HKDF, RFC 5869) from the file's, the tenant's name and the number of the epoch: what
leaks of one tenant, or of one quarter of a year, says nothing about the others.
"""

import base64
import binascii
import functools
import hmac
import re
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from inferwatch import secret_file
from inferwatch.config import ConfigError

KEY: Final = "privacy.key_file"

MIN_KEY_BYTES: Final = 32
MAX_FILE_BYTES: Final = 64 * 1024

# Random bytes have 30 different ones among 32 on average; fewer than this is a text or a pattern.
MIN_DIFFERENT: Final = 16

# Words that stand in examples.
_EXAMPLES: Final = (
    b"changeme",
    b"change-me",
    b"change_me",
    b"secret",
    b"password",
    b"default",
    b"example",
    b"inferwatch",
)

_ID: Final = re.compile(r"[a-z0-9]{1,16}")
_SALT: Final = b"inferwatch-privacy-1"
_DAY_S: Final = 86_400

# Whoever rotates waits for a restart longer than that.
LOOK_INTERVAL_S: Final = 60.0

# 500 tenants in two epochs, some 200 bytes each.
REMEMBERED: Final = 1024


class Derived(NamedTuple):
    """What one tenant's pseudonyms of one epoch are made with."""

    key_id: str  # as it stands in them: `ID` or `ID.EPOCH`
    key: bytes


class Keys:
    """The keys of one file. Shows nothing of them."""

    def __init__(self, keys: dict[str, bytes], epoch_days: int) -> None:
        """`keys` in the order of the file; `epoch_days` is 0 for one epoch that never ends."""
        self._keys = {key_id: hmac.digest(_SALT, key, "sha256") for key_id, key in keys.items()}
        self._current = list(keys)[-1]
        self._epoch_days = epoch_days
        self._derive = functools.lru_cache(maxsize=REMEMBERED)(self._derived)

    def __repr__(self) -> str:
        return f"Keys({', '.join(self._keys)})"

    def of(self, tenant: str, wall_s: float) -> Derived:
        """Return what new pseudonyms of `tenant` are made with at that time (Unix seconds)."""
        key_id = self._current
        if self._epoch_days:
            key_id += f".{int(wall_s // (self._epoch_days * _DAY_S))}"
        return self._derive(tenant, key_id)

    def again(self, tenant: str, key_id: str) -> Derived | None:
        """Return what an old pseudonym was made with; None if its key is not in the file any more."""
        return self._derive(tenant, key_id) if self.knows(key_id) else None

    def knows(self, key_id: str) -> bool:
        """Tell whether the key of this id is in the file."""
        return key_id.partition(".")[0] in self._keys

    def _derived(self, tenant: str, key_id: str) -> Derived:
        info = b"\x1f".join((b"pseudonym", tenant.encode("utf-8", "replace"), key_id.encode()))
        return Derived(key_id, hmac.digest(self._keys[key_id.partition(".")[0]], info + b"\x01", "sha256"))


class KeyWatch:
    """Looks now and then whether the file still ends with the key that is in use: a rotation needs a restart."""

    def __init__(self, path: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigError, as `read_keys`. Blocking."""
        self._path = path
        self._clock_s = clock_s
        self._used = self._last()
        self._due_s = clock_s() + LOOK_INTERVAL_S
        self.is_current = True

    def look(self) -> None:
        """Read the file, unless that was done lately. Blocking."""
        if self._clock_s() < self._due_s:
            return
        self._due_s = self._clock_s() + LOOK_INTERVAL_S
        try:
            self.is_current = self._last() == self._used
        except ConfigError:
            self.is_current = False

    def _last(self) -> Derived:
        """Return what stands for the last key: its name, and something that is derived from it."""
        return read_keys(self._path, 0).of("", 0.0)


def read_keys(path: str, epoch_days: int) -> Keys:
    """Read a file of keys. Blocking.

    Raises:
        ConfigError: it cannot be read, or a line is no key; names the line and never what stands in it.
    """
    data = secret_file.whole(KEY, path, MAX_FILE_BYTES)
    keys: dict[str, bytes] = {}
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("# "):
            continue
        place = f"{KEY}: line {number}"
        key_id, _, text = line.strip().partition(" ")
        if not _ID.fullmatch(key_id):
            raise ConfigError(f"{place}: expected `ID KEY`, with 1 to 16 small letters and digits as ID")
        if key_id in keys:
            raise ConfigError(f"{place}: its ID is written twice")
        keys[key_id] = _key(place, text.strip())
    if not keys:
        raise ConfigError(f"{KEY}: holds no key")
    return Keys(keys, epoch_days)


def _key(place: str, text: str) -> bytes:
    try:
        key = bytes.fromhex(text) if re.fullmatch(r"[0-9A-Fa-f]+", text) else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise ConfigError(f"{place}: the key is neither hex nor base64") from None
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(f"{place}: a key of {len(key)} bytes, expected at least {MIN_KEY_BYTES}")
    if len(set(key)) < MIN_DIFFERENT or any(word in key.lower() or word in text.lower().encode() for word in _EXAMPLES):
        raise ConfigError(f"{place}: the key is not random, make one with `openssl rand -base64 32`")
    return key
