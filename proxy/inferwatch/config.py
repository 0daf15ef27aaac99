"""Configuration: declared once, as data. Flags > environment > YAML file > defaults.

The structs in `settings/` are the only place where a key, its default, its bounds and its meaning are written; the
loader, the reference page (`docs/configuration.md`) and the error messages are derived from them.
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from inferwatch.settings import (
    access,
    addresses,
    budgets,
    canary,
    cost,
    embeddings,
    energy,
    engine_metrics,
    feedback,
    live,
    observing,
    otlp,
    prices,
    privacy,
    quality,
    tenants,
)
from inferwatch.settings.access import Access
from inferwatch.settings.anomalies import Anomalies
from inferwatch.settings.budgets import Budgets
from inferwatch.settings.canary import Canary
from inferwatch.settings.cost import Attribution, Cost
from inferwatch.settings.drift import Drift
from inferwatch.settings.energy import Energy
from inferwatch.settings.engine_metrics import EngineMetrics
from inferwatch.settings.feedback import Feedback
from inferwatch.settings.gpu import Gpu
from inferwatch.settings.live import Live
from inferwatch.settings.observing import Identity, Ledger, Log, Metrics, Trace
from inferwatch.settings.otlp import Otlp
from inferwatch.settings.prices import Prices
from inferwatch.settings.privacy import Privacy
from inferwatch.settings.quality import Quality
from inferwatch.settings.tenants import Tenants
from inferwatch.settings.traffic import Drain, Limits, Tap, Tls, Upstream, Usage

ENV_PREFIX: Final = "INFERWATCH__"

# It goes to each child in one line, to the collector twice over (once redacted): see `control.MAX_LINE_BYTES`.
MAX_CONFIG_BYTES: Final = 384 * 1024

# msgspec's words for a value that is none of its kind, and ours.
_REWORDED: Final = {
    "invalid decimal string": "expected a plain number, such as 0.15",
    "invalid RFC3339 encoded date": "expected a date, such as 2026-01-31",
}


class ConfigError(ValueError):
    """The configuration is wrong; the message is one line and names the key."""

    def __init__(self, message: str) -> None:
        # It may quote a key or a value, and those may hold anything.
        super().__init__("".join(char if char.isprintable() else "?" for char in message))


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration."""

    listen: Annotated[str, Meta(description="Data port, `host:port`. No path on it is ours.")] = "0.0.0.0:8080"
    admin: Annotated[str, Meta(description="Admin port: `/metrics`, `/healthz`, `/readyz`, …")] = "127.0.0.1:9480"
    workers: Annotated[int, Meta(ge=1, le=256, description="Relay processes that share the data port.")] = 1
    state_dir: Annotated[
        str,
        Meta(description="Ledger, spool and key; empty: `$STATE_DIRECTORY`, or a folder per data port in the user's."),
    ] = ""
    access: Access = Access()
    upstream: Upstream = Upstream()
    tls: Tls = Tls()
    limits: Limits = Limits()
    usage: Usage = Usage()
    tap: Tap = Tap()
    drain: Drain = Drain()
    identity: Identity = Identity()
    tenants: Tenants = Tenants()
    prices: Prices = Prices()
    budgets: Budgets = Budgets()
    anomalies: Anomalies = Anomalies()
    drift: Drift = Drift()
    quality: Quality = Quality()
    feedback: Feedback = Feedback()
    canary: Canary = Canary()
    cost: Cost = Cost()
    attribution: Attribution = Attribution()
    energy: Energy = Energy()
    trace: Trace = Trace()
    otlp: Otlp = Otlp()
    privacy: Privacy = Privacy()
    gpu: Gpu = Gpu()
    engine_metrics: EngineMetrics = EngineMetrics()
    metrics: Metrics = Metrics()
    live: Live = Live()
    ledger: Ledger = Ledger()
    log: Log = Log()


# Taken up by a running process on SIGHUP; the rest needs a restart, and the log says so.
RELOADABLE: Final = frozenset(
    {
        "access",
        "upstream",
        "limits",
        "usage",
        "drain",
        "identity",
        "tenants",
        "prices",
        "budgets",
        "engine_metrics",
        "trace",
        "log",
    }
)


def load(
    path: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Merge file, environment and flags (dotted keys: `{"upstream.url": …}`) into a checked Config.

    Raises:
        ConfigError: one line that names the key (or the file) and what is wrong with it.
    """
    tree: dict[str, Any] = {}
    if path:
        from inferwatch.yaml_file import read_file  # noqa: PLC0415 - most starts need no YAML, which takes 40 ms

        tree = read_file(path)
        _drop_empty(tree, Config())
    known = dict(keys())
    variables: dict[str, str] = {}
    for name, value in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(ENV_PREFIX):
            key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
            if key not in known:
                raise ConfigError(f"environment {name}: there is no key `{key}`")
            if not in_environment(key, known[key]):
                raise ConfigError(f"environment {name}: `{key}` is a list of sections, write it in the file")
            _put(tree, key, value)
            variables[key] = name
    for key, value in (flags or {}).items():
        if value is not None:
            _put(tree, key, value)
            variables.pop(key, None)
    _split_lists(tree)
    try:
        config = msgspec.convert(tree, Config, strict=False)
    except msgspec.ValidationError as error:
        told = reworded(str(error))
        variable = variables.get(re.split(r"[:\[]", told)[0])
        raise ConfigError(f"{told} (environment {variable})" if variable else told) from None
    _check(config)
    return config


def parse_address(key: str, text: str) -> tuple[str, int]:
    """Split `host:port`; `:port` means all interfaces, `[::1]:port` is IPv6.

    Raises:
        ConfigError: naming `key`.
    """
    host, colon, port = text.rpartition(":")
    numeric = port.isascii() and port.isdigit() and int(port) <= 65535
    if not colon or not numeric or any(char.isspace() or not char.isprintable() for char in host):
        raise ConfigError(f"{key}: expected `host:port`, got `{text}`")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)


def reachable_address(key: str, text: str) -> tuple[str, int]:
    """Split `host:port` for a client: what listens on all interfaces is reached on this host.

    Raises:
        ConfigError: naming `key`.
    """
    host, port = parse_address(key, text)
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port


def address_text(host: str, port: int) -> str:
    """Return `host:port`, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def redacted(config: Config) -> dict[str, Any]:
    """Return the configuration for people to read. Keys live in files, so only a password in a URL needs hiding."""
    tree: dict[str, Any] = msgspec.to_builtins(config)
    tree["upstream"]["url"] = _without_password(config.upstream.url)
    return tree


def _without_password(url: str) -> str:
    before, separator, rest = url.partition("://")
    userinfo, at, host = rest.partition("/")[0].rpartition("@")
    return f"{before}{separator}***@{host}{rest[len(userinfo) + len(at) + len(host) :]}" if at else url


def keys() -> Iterator[tuple[str, "msgspec.inspect.Field"]]:
    """Yield every key with its declaration, in the order of the reference page.

    A list of sections is yielded itself, and then the keys of its items: `prices.rules`, `prices.rules[].model`, ….
    """
    info = msgspec.inspect.type_info(Config)
    assert isinstance(info, msgspec.inspect.StructType)
    yield from _walk(info, "")


def _walk(info: "msgspec.inspect.StructType", prefix: str) -> Iterator[tuple[str, "msgspec.inspect.Field"]]:
    for field in info.fields:
        if isinstance(field.type, msgspec.inspect.StructType):
            yield from _walk(field.type, f"{prefix}{field.name}.")
            continue
        yield prefix + field.name, field
        item = item_type(field)
        if isinstance(item, msgspec.inspect.StructType):
            yield from _walk(item, f"{prefix}{field.name}[].")


def in_environment(key: str, field: "msgspec.inspect.Field") -> bool:
    """Tell whether a value, or a list of values, can be given for `key` in the environment."""
    return "[]" not in key and not isinstance(item_type(field), msgspec.inspect.StructType)


def bare_type(field: "msgspec.inspect.Field") -> "msgspec.inspect.Type":
    """Return the type of a key without what is said about it."""
    return field.type.type if isinstance(field.type, msgspec.inspect.Metadata) else field.type


def item_type(field: "msgspec.inspect.Field") -> "msgspec.inspect.Type | None":
    """Return what a list is a list of, None for anything else."""
    bare = bare_type(field)
    return bare.item_type if isinstance(bare, msgspec.inspect.VarTupleType) else None


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for name in path:
        child = tree.setdefault(name, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{name}: expected a section, got a value")
        tree = child
    tree[last] = value


def _drop_empty(tree: dict[Any, Any], defaults: msgspec.Struct) -> None:
    """Take a section whose keys are all commented out, which YAML has as null, for one that is not there."""
    for name in [name for name in tree if isinstance(name, str)]:
        default = getattr(defaults, name, None)
        if not isinstance(default, msgspec.Struct):
            continue
        if tree[name] is None:
            del tree[name]
        elif isinstance(tree[name], dict):
            _drop_empty(tree[name], default)


def _split_lists(tree: dict[str, Any]) -> None:
    """Let a list of words be written as `a, b` in the environment, on the command line and in the file."""
    for key, field in keys():
        if not isinstance(item_type(field), msgspec.inspect.StrType):
            continue
        *path, last = key.split(".")
        section: Any = tree
        for name in path:
            section = section.get(name) if isinstance(section, dict) else None
        if isinstance(section, dict) and isinstance(section.get(last), str):
            section[last] = [part.strip() for part in section[last].split(",") if part.strip()]


def reworded(message: str) -> str:
    """Turn msgspec's "Expected `float`, got `str` - at `$.upstream.url`" into "upstream.url: expected …"."""
    text, marker, where = message.partition(" - at `")
    if not marker:
        return message[0].lower() + message[1:]
    if where.startswith("key"):
        section = where.partition("$")[2].strip(".`")
        return f"{section or 'configuration'}: a key is not a word"
    key = where.rstrip("`").removeprefix("$").removeprefix(".")
    text = text[0].lower() + text[1:]
    text = _REWORDED.get(text, text)
    choices = _choices().get(re.sub(r"\[\d+\]", "[]", key))
    if choices and text.startswith("invalid enum"):
        text += f", expected {', '.join(choices)}"
    return f"{key or 'configuration'}: {text}"


def _choices() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for key, field in keys():
        kind = bare_type(field)
        if isinstance(kind, msgspec.inspect.LiteralType):
            found[key] = tuple(str(value) for value in kind.values)
    return found


def _check(config: Config) -> None:
    tree = msgspec.to_builtins(config)
    size = len(msgspec.json.encode(tree))
    if size > MAX_CONFIG_BYTES:
        raise ConfigError(f"configuration: {size} bytes, expected at most {MAX_CONFIG_BYTES}")
    for key, text in _texts(tree, ""):
        if "\0" in text:
            raise ConfigError(f"{key}: holds a null byte")
    listen, admin = parse_address("listen", config.listen), parse_address("admin", config.admin)
    fault = addresses.upstream_fault(config.upstream.url)
    fault = fault or addresses.clash(
        listen, admin, (config.upstream.host, config.upstream.port), alone=config.workers == 1
    )
    if fault:
        raise ConfigError(fault)
    if bool(config.tls.cert_file) != bool(config.tls.key_file):
        raise ConfigError("tls.key_file: `tls.cert_file` and `tls.key_file` go together")
    for key in ("tls.cert_file", "tls.key_file", "upstream.tls_ca_file", "identity.key_file", "privacy.key_file"):
        section, name = key.split(".")
        file = getattr(getattr(config, section), name)
        if file and not os.access(file, os.R_OK):
            raise ConfigError(f"{key}: cannot read `{file}`")
    _check_tls(config)
    for peer in config.identity.trusted_peers:
        try:
            ipaddress.ip_network(peer, strict=False)
        except ValueError:
            raise ConfigError(f"identity.trusted_peers: `{peer}` is not a network") from None
    if fault := _section_fault(config):
        raise ConfigError(fault)


def _section_fault(config: Config) -> str:
    """Return what sections say is wrong with them, or with one beside another."""
    return (
        access.fault(config.access)
        or tenants.fault(config.tenants)
        or prices.fault(config.prices)
        or cost.fault(config.cost, config.attribution)
        or energy.fault(config.energy)
        or engine_metrics.fault(config.engine_metrics)
        or live.fault(config.live)
        or observing.ledger_fault(config.ledger)
        or budgets.fault(config.budgets, config.cost)
        or otlp.fault(config.otlp)
        or feedback.fault(config.feedback)
        or canary.fault(config.canary)
        or quality.fault(config.quality)
        or embeddings.fault(config.drift.embeddings, text=config.drift.text)
        or privacy.fault(config.privacy, traced=config.otlp.traces)
    )


def _texts(value: object, key: str) -> Iterator[tuple[str, str]]:
    """Yield every text in a tree of plain values with its key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _texts(child, f"{key}.{name}" if key else name)
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield from _texts(child, f"{key}[{index}]")


def _check_tls(config: Config) -> None:
    try:
        if config.tls.cert_file:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls.cert_file, config.tls.key_file)
    except (ssl.SSLError, OSError):
        raise ConfigError(f"tls.cert_file: `{config.tls.cert_file}` and its key are not a usable PEM pair") from None
    try:
        if config.upstream.tls_ca_file:
            ssl.create_default_context(cafile=config.upstream.tls_ca_file)
    except (ssl.SSLError, OSError):
        raise ConfigError(
            f"upstream.tls_ca_file: `{config.upstream.tls_ca_file}` holds no usable PEM certificate"
        ) from None
