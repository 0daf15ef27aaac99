"""`inferwatch report --drift`: what is unlike before, asked of the running collector. Evidence lives there, not in
the file."""

import http.client
from typing import Final
from urllib.parse import urlencode

from inferwatch import admin_token
from inferwatch.config import Config, reachable_address

TIMEOUT_S: Final = 10.0

FORMATS: Final = {"table": "text", "json": "json"}


class DriftError(Exception):
    """There is no report to be had."""


def asked(loaded: Config, name: str, tenant: str | None = None) -> str:
    """Return the report in the format `name`, one of FORMATS; of one tenant alone, or of all. Blocking.

    Raises:
        ConfigError: a token that the configuration names cannot be read.
        DriftError: nobody answers on the admin port, or not with a report.
    """
    wanted = {"format": FORMATS[name]} | ({} if tenant is None else {"tenant": tenant})
    host, port = reachable_address("admin", loaded.admin)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", f"/drift?{urlencode(wanted)}", headers=admin_token.headers(loaded.access))
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise DriftError(f"no answer on the admin port {host}:{port}: {error}") from None
    except ValueError:  # Python's words may quote what was to be sent
        raise DriftError(f"no answer on the admin port {host}:{port}: that is no host's name") from None
    finally:
        connection.close()
    if response.status == http.client.UNAUTHORIZED:
        raise DriftError(f"{host}:{port} wants its token: --token-file, or ${admin_token.CLIENT_VARIABLE}")
    if response.status != http.client.OK:
        raise DriftError(f"{host}:{port}/drift answered {response.status}")
    return text
