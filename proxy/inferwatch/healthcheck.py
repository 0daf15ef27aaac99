"""`inferwatch healthcheck`: asks the instance that runs, whatever has become of its configuration since.

A container's runtime restarts what fails it. So where `serve` noted its admin port in the state folder, that is asked:
a file that was edited wrongly, or whose `admin` waits for a restart, is no reason to end what serves. Of the
configuration only the keys that say where to ask are read.
"""

import argparse
import http.client
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from inferwatch import host
from inferwatch.config import ENV_PREFIX, Config, ConfigError, address_text, reachable_address
from inferwatch.flags import EXIT_OK, EXIT_RUNTIME

_KEYS: Final = ("admin", "listen", "state_dir")


def run(arguments: argparse.Namespace, path: str | None) -> int:
    """Ask. Returns 0 if the data path is alive, else 1.

    Raises:
        ConfigError: nobody noted where to ask, and the configuration does not say it, or its file cannot be read.
    """
    tree, fault = _in_file(path)
    flags = {key: getattr(arguments, key) for key in _KEYS}
    said = msgspec.structs.replace(Config(), **_said(tree, os.environ, flags))
    noted = "" if flags["admin"] else _noted(said)
    answered, told = _ask(*reachable_address("admin", noted or said.admin), arguments.timeout_s)
    if noted not in ("", said.admin) and not answered:  # an instance that was killed leaves its note
        _, told = _ask(*reachable_address("admin", said.admin), arguments.timeout_s)
    if not told:
        return EXIT_OK
    if fault and not noted and not flags["admin"]:
        raise ConfigError(fault)
    sys.stderr.write(f"inferwatch: {told}\n")
    return EXIT_RUNTIME


def _in_file(path: str | None) -> tuple[dict[str, Any], str]:
    """Return what is in the file, and what is wrong with it."""
    if not path:
        return {}, ""
    from inferwatch.yaml_file import read_file  # noqa: PLC0415 - most checks need no YAML, which takes 40 ms

    try:
        return read_file(path), ""
    except ConfigError as error:
        return {}, str(error)


def _said(tree: Mapping[str, Any], environ: Mapping[str, str], flags: Mapping[str, str | None]) -> dict[str, str]:
    """Return what is said of _KEYS, the flags' word last."""
    variables = {name.removeprefix(ENV_PREFIX).lower(): text for name, text in environ.items() if _is_ours(name)}
    layers = (tree, variables, flags)
    return {key: text for layer in layers for key in _KEYS if isinstance(text := layer.get(key), str)}


def _is_ours(name: str) -> bool:
    return name.startswith(ENV_PREFIX)


def _noted(said: Config) -> str:
    try:
        return host.noted_admin(host.state_path(said))
    except ConfigError:
        return ""


def _ask(where: str, port: int, timeout_s: float) -> tuple[bool, str]:
    """Return whether somebody answered, and "" if the data path is alive, else what is wrong."""
    connection = http.client.HTTPConnection(where, port, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: a host that no name can be
        return False, f"no answer on the admin port {address_text(where, port)}: {error}"
    finally:
        connection.close()
    return True, "" if status == http.client.OK else f"not healthy: /healthz answered {status}"
