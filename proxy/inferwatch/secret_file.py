"""Files and variables that hold a secret: the one place that reads tokens, keys and addresses with a password in them.

What a fault says names the key of the configuration, and never the path: somebody may have put the secret itself there.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from inferwatch.config import ConfigError

# Of other services' tokens, which may be long: a JWT with many claims.
MAX_BYTES: Final = 4096


def whole(key: str, path: str, max_bytes: int) -> bytes:
    """Return what is in `path`. Blocking.

    Raises:
        ConfigError: naming `key`: it cannot be read, or is longer than `max_bytes`.
    """
    data = _start(key, path, max_bytes + 1)
    if len(data) > max_bytes:
        raise ConfigError(f"{key}: the file has more than {max_bytes} bytes")
    return data


def first_line(key: str, path: str, max_bytes: int = MAX_BYTES) -> str:
    """Return the first line of `path`, without blanks around it, and at most `max_bytes` of it. Blocking.

    Raises:
        ConfigError: it cannot be read, naming `key`.
    """
    return _start(key, path, max_bytes).partition(b"\n")[0].strip().decode("utf-8", "replace")


def bearer(key: str, path: str) -> dict[str, str]:
    """Return the header with the token in a file, none without a file. Blocking.

    Raises:
        ConfigError: naming `key`, never the token: the file cannot be read, or holds none that a header could carry.
    """
    if not path:
        return {}
    token = first_line(key, path)
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError(f"{key}: the file holds no token")
    return {"Authorization": f"Bearer {token}"}


def variable(name: str, environ: Mapping[str, str] | None = None) -> str:
    """Return what an environment variable holds; "" if there is none, or no name.

    Without blanks around it: what Kubernetes makes of a secret often ends with the line break of the file that it was.
    """
    return (os.environ if environ is None else environ).get(name, "").strip() if name else ""


def _start(key: str, path: str, max_bytes: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(max_bytes)
    except OSError as error:
        raise ConfigError(f"{key}: cannot read the file: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{key}: not the path of a file") from None
