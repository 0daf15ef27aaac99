"""Where the Redis of shared budgets is: the one place that reads its address, which may hold a password."""

import os
import ssl
from collections.abc import Mapping
from importlib.util import find_spec

from inferwatch import secret_file
from inferwatch.config import ConfigError
from inferwatch.settings.sharing import Redis, url_fault


def check(redis: Redis) -> None:
    """See that what the configuration says of Redis can be used on this host. Asks no Redis.

    Raises:
        ConfigError: naming the key, never the address.
    """
    if not redis.is_used:
        return
    key = next(name for name in ("url", "url_file", "url_env") if getattr(redis, name))
    if find_spec("redis") is None:
        raise ConfigError(f"budgets.redis.{key}: needs redis-py: pip install 'inferwatch[redis]'")
    _ = read(redis)
    try:
        if redis.tls_ca_file:
            ssl.create_default_context(cafile=redis.tls_ca_file)
    except (ssl.SSLError, OSError):
        raise ConfigError("budgets.redis.tls_ca_file: cannot be read, or holds no usable PEM certificate") from None


def read(redis: Redis, environ: Mapping[str, str] | None = None) -> str:
    """Return the address. Blocking.

    Raises:
        ConfigError: naming the key, never the address: a file or variable cannot be read, or holds none.
    """
    key, url = "url", redis.url
    if redis.url_file:
        key, url = "url_file", secret_file.first_line("budgets.redis.url_file", redis.url_file)
    elif redis.url_env:
        key, url = "url_env", (os.environ if environ is None else environ).get(redis.url_env, "")
        if not url:
            raise ConfigError("budgets.redis.url_env: there is no such environment variable, or it is empty")
    if fault := url_fault(url):
        raise ConfigError(f"budgets.redis.{key}: {fault}")
    return url
