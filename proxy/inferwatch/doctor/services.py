"""What stands beside us: Prometheus, and the Inferwatch that runs already."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from inferwatch import admin_token, redis_address
from inferwatch.config import ConfigError, parse_address
from inferwatch.doctor import machine
from inferwatch.doctor.finding import Finding, Level
from inferwatch.doctor.patient import TIMEOUT_S, Patient, TlsFiles
from inferwatch.secret_file import bearer, variable
from inferwatch.settings.embeddings import OWN

# A series of ours that every scrape brings.
_UP_QUERY: Final = "inferwatch_build_info"

# The specification's own.
_GRPC_PORT: Final = 4317

# Prometheus keeps a series that is not renewed for five minutes.
_STALE_S: Final = 300.0


async def prometheus(patient: Patient) -> list[Finding]:
    """Whether the Prometheus at `--prometheus`, or else that of the live page, has fresh numbers of ours."""
    live = patient.config.live
    url = (patient.options.prometheus or live.prometheus_url).rstrip("/")
    if not url:
        return []
    headers, labels = {}, ""
    if not patient.options.prometheus:
        labels = f"{{instance={msgspec.json.encode(live.instance).decode()}}}" if live.instance else ""
        try:
            headers = await asyncio.to_thread(bearer, "live.prometheus_token_file", live.prometheus_token_file)
        except ConfigError as error:
            remedy = "write the token there, so that the user that runs Inferwatch can read it"
            return [Finding(check="prometheus", level=Level.FAULT, what=str(error), remedy=remedy)]
    query = quote(f"timestamp({_UP_QUERY}{labels})")
    reply = await patient.get(f"{url}/api/v1/query?query={query}", **headers)
    ages = _ages_s(reply.json) if reply.status == 200 else None
    if ages is None:
        remedy = (
            "give the base URL of a Prometheus, as http://prometheus:9090, in `live.prometheus_url` or --prometheus"
        )
        what = f"{url}: {reply.error or f'answers {reply.status}'}"
        return [Finding(check="prometheus", level=Level.FAULT, what=what, remedy=remedy)]
    if not ages or min(ages) > _STALE_S:
        port = parse_address("admin", patient.config.admin)[1]
        remedy = f"add a scrape job for port {port}, path /metrics, and look at {url}/targets for its error"
        what = f"{url} has no fresh series of Inferwatch{labels}"
        return [Finding(check="prometheus", level=Level.FAULT, what=what, remedy=remedy)]
    return [Finding(check="prometheus", level=Level.OK, what=f"{len(ages)} Inferwatch(es), {min(ages):.0f} s ago")]


def _ages_s(answer: Any) -> list[float] | None:
    """Return how old each series of an instant query for time stamps is; None if it is no such answer."""
    try:
        return [time.time() - float(row["value"][1]) for row in answer["data"]["result"]]
    except (TypeError, KeyError, IndexError, ValueError):
        return None


async def redis(patient: Patient) -> list[Finding]:
    """Whether the Redis of shared budgets can be used from here."""
    settings = patient.config.budgets.redis
    if not settings.is_used:
        return []
    from inferwatch_collectors.budgets.redis_link import LinkError, RedisLink  # noqa: PLC0415 - its import only here

    try:
        redis_address.check(settings)
        link = await RedisLink.open(redis_address.read(settings), settings)
    except ConfigError as error:
        remedy = "docs/topics/budgets.md says what is needed"
        return [Finding(check="redis", level=Level.FAULT, what=str(error), remedy=remedy)]
    except LinkError as error:
        remedy = "see that it runs and can be reached, and that user and password may run INFO and scripts"
        return [Finding(check="redis", level=Level.FAULT, what=f"the Redis of shared budgets: {error}", remedy=remedy)]
    await link.close()
    return [Finding(check="redis", level=Level.OK, what="budgets can be shared")]


async def otlp(patient: Patient) -> list[Finding]:
    """Whether somebody takes what is exported, signal by signal. What is sent is an empty request: nothing is added."""
    settings = patient.config.otlp
    if not settings.exports():
        return []
    from inferwatch_collectors.otlp import environment  # noqa: PLC0415 - as above

    found = []
    for signal in environment.SIGNALS:
        try:
            if environment.exports(settings, signal):
                found.append(await _otlp(patient, signal, environment.protocol(settings, signal)))
        except ConfigError as error:
            remedy = "docs/topics/traces.md says which variables are heeded"
            found.append(Finding(check="otlp", level=Level.FAULT, what=str(error), remedy=remedy))
    return found


async def _otlp(patient: Patient, signal: str, protocol: str) -> Finding:
    from inferwatch_collectors.otlp.environment import GRPC, endpoint, of_exporter  # noqa: PLC0415 - as above

    where = endpoint(patient.config.otlp, signal)
    if protocol == GRPC:
        error = await _cannot_connect(where)
        status = 0
    else:
        headers = {"content-type": "application/x-protobuf"} | _pairs(of_exporter(signal, "HEADERS").value)
        names = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
        reply = await patient.post(where, headers, TlsFiles(*(of_exporter(signal, name).value for name in names)))
        status, error = reply.status, reply.error or ("" if reply.status == 200 else f"answers {reply.status}")
    shown = _without_user(where)
    if not error:
        return Finding(check="otlp", level=Level.OK, what=f"{signal}: {shown} takes them")
    remedy = "start an OpenTelemetry collector there, or correct `otlp.endpoint`; traffic does not wait for it"
    if status in (401, 403):
        remedy = "put the header with its token into OTEL_EXPORTER_OTLP_HEADERS"
    elif status == 404:
        remedy = "give `otlp.endpoint` without /v1/…, and look whether the collector has a pipeline for this signal"
    elif "certificate" in error:
        remedy = "name its CA in OTEL_EXPORTER_OTLP_CERTIFICATE"
    return Finding(check="otlp", level=Level.FAULT, what=f"{signal}: {shown}: {error}", remedy=remedy)


async def embeddings(patient: Patient) -> list[Finding]:
    """Whether the endpoint of `drift.embeddings` embeds a word, as the collector would have it done."""
    wanted = patient.config.drift.embeddings
    if not wanted.is_used:
        return []
    from inferwatch_collectors.embeddings.asking import PATH, EmbeddingError, read  # noqa: PLC0415 - as above

    body = {"model": wanted.model, "input": ["hello"]}
    if wanted.url == OWN:
        if not patient.options.request:
            return [Finding(check="embeddings", level=Level.NOTE, what="the engine was not asked for any")]
        where, reply = patient.config.upstream.url, await patient.engine(PATH, body)
    else:
        where = wanted.url
        try:
            headers = await asyncio.to_thread(bearer, "drift.embeddings.token_file", wanted.token_file)
        except ConfigError as error:
            remedy = "write the token there, so that the user that runs Inferwatch can read it"
            return [Finding(check="embeddings", level=Level.FAULT, what=str(error), remedy=remedy)]
        if key := variable(wanted.key_env):
            headers = {"Authorization": f"Bearer {key}"}
        reply = await patient.post_json(f"{where.rstrip('/')}{PATH}", headers, body)
    error_text = reply.error or ("" if reply.status == 200 else f"answers {reply.status}")
    size = 0
    try:
        size = 0 if error_text else len(read(reply.body, 1, wanted.model).vectors[0])
    except EmbeddingError:
        error_text = "its answer is not one of embeddings"
    if error_text:
        remedy = "start an endpoint of OpenAI's kind there, or correct `drift.embeddings`; drift is judged without it"
        if reply.status in (401, 403):
            remedy = "give its token in `drift.embeddings.token_file` or `drift.embeddings.key_env`"
        elif reply.status == 404:
            remedy = "correct `drift.embeddings.model`, and give the URL without /v1/embeddings"
        return [Finding(check="embeddings", level=Level.FAULT, what=f"{where}: {error_text}", remedy=remedy)]
    return [Finding(check="embeddings", level=Level.OK, what=f"{where} embeds, in {size} dimensions")]


def _without_user(url: str) -> str:
    """Return a URL, or what should be one, without what is in it of a user and a password."""
    scheme, mark, rest = url.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


async def _cannot_connect(address: str) -> str:
    """Return why nobody accepts a connection there, "" if somebody does."""
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or _GRPC_PORT)
    except TimeoutError:
        return f"no answer within {TIMEOUT_S:.0f} s"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or "no connection"
    writer.close()
    return ""


def _pairs(text: str) -> dict[str, str]:
    """Return OTEL_EXPORTER_OTLP_HEADERS as headers."""
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


# (metric, is it bad, what it means, remedy): what a running Inferwatch says of itself.
_SIGNS: Final[tuple[tuple[str, Callable[[float], bool], str, str], ...]] = (
    (
        "inferwatch_ledger_durable",
        lambda value: value == 0,
        "the ledger is not on disk: what is booked would be lost with the process",
        "look for `ledger_` in the log: the disk is full or cannot be written, or there is no state folder",
    ),
    (
        "inferwatch_config_last_reload_successful",
        lambda value: value == 0,
        "the last reload failed, the old configuration is in force",
        "`inferwatch check-config` with the same file says what is wrong",
    ),
    (
        "inferwatch_tap_lost_total",
        lambda value: value > 0,
        "finished requests were lost: neither memory nor disk had room for them",
        "give the state folder more room; `tap.max_spool_bytes` bounds it",
    ),
    (
        "inferwatch_relay_observer_errors_total",
        lambda value: value > 0,
        "the relay caught faults of its own; traffic was not touched, some requests were not watched",
        "please report it, with the log's `observer_fault` lines",
    ),
    (
        "inferwatch_collector_observer_errors_total",
        lambda value: value > 0,
        "the collector caught faults of its own; some numbers are missing",
        "please report it, with the log's `observer_fault` lines",
    ),
    (
        "inferwatch_budget_redis_up",
        lambda value: value == 0,
        "the Redis of shared budgets does not answer",
        "look for `budgets_redis_failed` in the log, and at inferwatch_budget_redis_failures_total",
    ),
    (
        "inferwatch_capture_ratio",
        lambda value: value < 0.99,
        "the engine has made tokens that did not go through here",
        "somebody talks to the engine directly: close its port to all but Inferwatch",
    ),
)


async def running(patient: Patient) -> list[Finding]:
    """What the Inferwatch on our admin port says of itself."""
    version = await machine.running_version(patient)
    if not version:
        return []
    if version == machine.UNSAID:
        what = "an Inferwatch runs here, and its admin port wants a token"
        remedy = f"give `--token-file`, or the token in ${admin_token.CLIENT_VARIABLE}"
        return [Finding(check="running", level=Level.NOTE, what=what, remedy=remedy)]
    ready = await patient.admin("/readyz")
    found = []
    if ready.status == 200:
        found.append(Finding(check="running", level=Level.OK, what=f"Inferwatch {version} is ready"))
    else:
        what = f"Inferwatch {version} runs and is not ready ({patient.admin_url}/readyz says why)"
        remedy = "start the engine, or wait until draining is over"
        found.append(Finding(check="running", level=Level.FAULT, what=what, remedy=remedy))
    scrape = await patient.admin("/metrics")
    values = _samples(scrape.body.decode("utf-8", "replace"))
    for metric, bad, what, remedy in _SIGNS:
        if any(bad(value) for value in values.get(metric, ())):
            found.append(Finding(check="running", level=Level.WARNING, what=what, remedy=remedy))
    return found


def _samples(text: str) -> dict[str, list[float]]:
    """Return all values of each metric in a Prometheus text; nothing of one that is none."""
    found: dict[str, list[float]] = {}
    with contextlib.suppress(ValueError):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample.value)
    return found
