"""All that the collector takes from outside, as the supervisor says it in its first message."""

from collections.abc import Mapping
from typing import Any

import msgspec

from inferwatch.config import Config


class CollectorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All that the collector takes from outside."""

    config: Config
    socket_path: str
    spool_dir: str
    state_dir: str  # "": the ledger lives in memory
    board: str = ""  # what budgets are kept on; "": they are counted, not enforced
    access: dict[str, str] = {}  # digests of the tokens of the admin port, see `admin_token`; no `admin`: it is open
    data_host: str = ""  # where the data port listens
    data_port: int = 0  # 0: not known
    admin_fd: int = -1  # an inherited listening socket; -1: bind `config.admin`
    shown_config: dict[str, Any] = {}
    status: dict[str, Any] = {}  # the supervisor's first `status` message


def settings_from(message: Mapping[str, Any], admin_fd: int) -> CollectorSettings:
    """Return the settings in the supervisor's first message."""
    return CollectorSettings(
        config=msgspec.convert(message["config"], Config),
        socket_path=message["tap_socket"],
        spool_dir=message["spool_dir"],
        state_dir=message["state_dir"],
        board=message.get("board", ""),
        access=message.get("access", {}),
        data_host=message.get("data_host", ""),
        data_port=message.get("data_port", 0),
        admin_fd=admin_fd,
        shown_config=message.get("redacted", {}),
        status=message.get("status", {}),
    )
