"""`inferwatch doctor`: runs all checks side by side and shows what they found."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp

from inferwatch.config import Config, ConfigError
from inferwatch.doctor import canary, engine, files, machine, services
from inferwatch.doctor.finding import Finding, Level, as_json, as_text, worst
from inferwatch.doctor.patient import Options, Patient
from inferwatch.secret_file import variable

# In the order in which they are shown: what must work first. A check is one line here and a function.
CHECKS: Final[tuple[Callable[[Patient], Awaitable[list[Finding]]], ...]] = (
    engine.reachable,
    engine.identified,
    engine.metrics,
    machine.ports,
    machine.access,
    machine.state,
    machine.limits,
    machine.clock,
    machine.gpu,
    files.tenants,
    files.keys,
    files.certificate,
    files.prices,
    services.redis,
    services.otlp,
    services.embeddings,
    canary.logprobs,
    services.running,
    services.prometheus,
)

# Progress is told of what takes longer.
SLOW_S: Final = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of an examination."""
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    parser.add_argument("--no-request", action="store_true", help="do not ask the engine for a token")
    parser.add_argument("--api-key-env", metavar="NAME", help="variable with a key of the engine, if it wants one")
    parser.add_argument("--prometheus", metavar="URL", default="", help="a Prometheus that should scrape us")


def run(arguments: argparse.Namespace, load: Callable[[], Config]) -> int:
    """Examine and print. Returns 0 if nothing is a fault, else 1; a wrong configuration is a fault like others.

    Raises:
        ConfigError: `--api-key-env` names no variable that has a key.
    """
    key = variable(arguments.api_key_env or "")
    if arguments.api_key_env and not key:
        raise ConfigError(f"--api-key-env: there is no environment variable `{arguments.api_key_env}`, or it is empty")
    options = Options(request=not arguments.no_request, api_key=key, prometheus=arguments.prometheus)
    try:
        config = load()
    except ConfigError as error:
        remedy = "docs/configuration.md has every key; `inferwatch check-config` checks a file without starting"
        findings = [Finding(check="config", level=Level.FAULT, what=str(error), remedy=remedy)]
    else:
        findings = asyncio.run(_examine(config, options))
    if arguments.json:
        sys.stdout.buffer.write(as_json(findings))
    else:
        sys.stdout.write(as_text(findings))
    return 1 if worst(findings) is Level.FAULT else 0


async def _examine(config: Config, options: Options) -> list[Finding]:
    async with aiohttp.ClientSession() as session:
        patient = Patient(config, options, session)
        loop = asyncio.get_running_loop()
        slow = loop.call_later(SLOW_S, sys.stderr.write, "inferwatch: doctor: waiting for answers …\n")
        try:
            found = await asyncio.gather(*(check(patient) for check in CHECKS))
        finally:
            slow.cancel()
    config_ok = Finding(check="config", level=Level.OK, what="it is well formed")
    return [config_ok, *(finding for group in found for finding in group)]
