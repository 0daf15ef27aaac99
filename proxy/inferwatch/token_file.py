"""The first line of a file that holds a token: the one place that reads them."""

from pathlib import Path
from typing import Final

from inferwatch.config import ConfigError

# Of other services' tokens, which may be long: a JWT with many claims.
MAX_BYTES: Final = 4096


def first_line(key: str, path: str, max_bytes: int = MAX_BYTES) -> str:
    """Return the first line of `path`, without blanks around it, and at most `max_bytes` of it. Blocking.

    Raises:
        ConfigError: it cannot be read, naming `key`.
    """
    try:
        with Path(path).open("rb") as file:
            line = file.readline(max_bytes)
    except OSError as error:
        raise ConfigError(f"{key}: cannot read `{path}`: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{key}: not the path of a file") from None
    return line.strip().decode("utf-8", "replace")


def bearer(key: str, path: str) -> dict[str, str]:
    """Return the header with the token in a file, none without a file. Blocking.

    Raises:
        ConfigError: naming `key`, never the token: the file cannot be read, or holds none that a header could carry.
    """
    if not path:
        return {}
    token = first_line(key, path)
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError(f"{key}: `{path}` holds no token")
    return {"Authorization": f"Bearer {token}"}
