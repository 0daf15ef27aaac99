"""The tokens of the admin port: the one place that reads them, for the port itself and for those who ask it.

Only who serves reads them all; a client reads its own.

The supervisor reads them, and what goes to the collector are their digests: nothing that could be shown by mistake.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Final

from inferwatch import secret_file
from inferwatch.config import ConfigError
from inferwatch.settings.access import Access
from inferwatch.settings.feedback import Feedback

# What a client gives if its configuration names no token: `inferwatch report` on a laptop has no file of the host's.
CLIENT_VARIABLE: Final = "INFERWATCH_TOKEN"

# Shorter ones can be guessed. `openssl rand -hex 32` makes 64.
MIN_CHARACTERS: Final = 16
MAX_CHARACTERS: Final = 1024


def digests(access: Access, feedback: Feedback, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the digests of the tokens that are configured: of `admin` and perhaps `metrics`, of `feedback`. Blocking.

    Raises:
        ConfigError: naming the key, never the token: a file or variable cannot be read, or holds none of use.
    """
    tokens = {
        "admin": _token("access.", access.token_file, access.token_env, environ),
        "metrics": _token("access.metrics_", access.metrics_token_file, access.metrics_token_env, environ),
        "feedback": _token("feedback.", feedback.token_file, feedback.token_env, environ),
    }
    return {who: digest(token) for who, token in tokens.items() if token}


def digest(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def headers(access: Access, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the headers with which a client asks the admin port: the configuration's token, else $INFERWATCH_TOKEN,
    else none. The variable also stands in for a file of the host's that the client has not, or may not read. Blocking.

    Raises:
        ConfigError: as above, or naming the variable.
    """
    environ = os.environ if environ is None else environ
    own = environ.get(CLIENT_VARIABLE, "").strip()
    try:
        token = _token("access.", access.token_file, access.token_env, environ)
    except ConfigError:
        if not own:
            raise
        token = ""
    if own and not token:
        token = _checked(f"${CLIENT_VARIABLE}", own)
    return {"Authorization": f"Bearer {token}"} if token else {}


def _token(prefix: str, file: str, variable: str, environ: Mapping[str, str] | None) -> str:
    """Return one token, "" if none is configured. `prefix` of the keys that name its `file` and its `variable`."""
    if file:
        key = f"{prefix}token_file"
        return _checked(key, secret_file.first_line(key, file, MAX_CHARACTERS + 2))
    if variable:
        key, token = f"{prefix}token_env", (os.environ if environ is None else environ).get(variable, "").strip()
        if not token:
            raise ConfigError(f"{key}: there is no environment variable `{variable}`, or it is empty")
        return _checked(key, token)
    return ""


def _checked(key: str, token: str) -> str:
    if not MIN_CHARACTERS <= len(token) <= MAX_CHARACTERS:
        raise ConfigError(f"{key}: holds {len(token)} characters, expected {MIN_CHARACTERS} to {MAX_CHARACTERS}")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{key}: holds blanks or characters that no HTTP header can carry")
    return token
