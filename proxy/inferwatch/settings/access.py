"""The admin port: who may use it. The configuration names where tokens are, it never holds one."""

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Tokens of the admin port."""

    token_file: Annotated[
        str,
        Meta(
            description="File whose first line is the token that the admin port asks for on all paths but `/healthz`, "
            "`/readyz`, the form to sign in on, and `/feedback`, which has its own. Empty, like the one below: whoever "
            "can reach the port may use it. To rotate: write the new token, reload."
        ),
    ] = ""
    token_env: Annotated[
        str, Meta(description="Environment variable that holds that token, if there is no `token_file`.")
    ] = ""
    metrics_token_file: Annotated[
        str,
        Meta(description="File with a token of its own for Prometheus: good for `/metrics` and for nothing else."),
    ] = ""
    metrics_token_env: Annotated[
        str, Meta(description="Environment variable that holds it, if there is no `metrics_token_file`.")
    ] = ""

    @property
    def is_guarded(self) -> bool:
        """Whether a token is asked for."""
        return bool(self.token_file or self.token_env)


def fault(access: Access) -> str:
    """Return what is wrong with `access`, beginning with the key, or ""."""
    for name in ("token_env", "metrics_token_env"):
        variable = getattr(access, name)
        if variable and not _VARIABLE.fullmatch(variable):
            return f"access.{name}: expected the name of an environment variable"
    for name in ("metrics_token_file", "metrics_token_env"):
        if getattr(access, name) and not access.is_guarded:
            return f"access.{name}: needs `access.token_file` or `access.token_env`, or all but /metrics would be open"
    return ""
