"""The engine: is it there, what is it, does it count, does it say what it knows."""

import asyncio
import email.utils
import time
from typing import Any, Final

import msgspec

from inferwatch.doctor.finding import Finding, Level
from inferwatch.doctor.patient import Patient, Reply
from inferwatch.engines import AUTO, UNKNOWN, VLLM, Asked, Profile, profile_of
from inferwatch.relay.engine_identity import Answer, identify

# As a profile says that its engine needs none.
NO_FLAGS: Final = UNKNOWN.flags

# Kerberos refuses at 300 s, dashboards look wrong long before; NTP holds milliseconds.
MAX_CLOCK_SKEW_S: Final = 5.0

# Where engines have their Prometheus text: vLLM and most others; trtllm-serve.
METRICS_PATHS: Final = ("/metrics", "/prometheus/metrics")

_ASK_ONE_TOKEN: Final = {
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 1,
    "temperature": 0,
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
}


async def reachable(patient: Patient) -> list[Finding]:
    """Whether anybody answers at `upstream.url`, and how late the answer's clock is."""
    url = patient.config.upstream.url
    reply = await patient.engine("/health")
    if not reply.status:
        return [_fault("upstream", f"{url}: {reply.error}", _remedy_unreachable(patient, reply.error))]
    if reply.status >= 500:
        what = f"{url}: /health answers {reply.status}"
        return [_fault("upstream", what, "the engine is up but not well: look at its log; it may still load its model")]
    found = [Finding(check="upstream", level=Level.OK, what=f"{url} answers")]
    date = reply.headers.get("date", "")
    if date and (skew := _skew_s(date)) is not None and abs(skew) > MAX_CLOCK_SKEW_S:
        what = f"the engine's clock is {skew:+.0f} s from this host's"
        remedy = "run NTP (chrony, systemd-timesyncd) on both: traces of the two will not fit together"
        found.append(Finding(check="clock", level=Level.WARNING, what=what, remedy=remedy))
    return found


async def identified(patient: Patient) -> list[Finding]:
    """What the engine is, as the relay finds out, and whether it counts tokens as we need it."""
    models, version = await asyncio.gather(patient.engine("/v1/models"), patient.engine("/version"))
    if not models.status:
        return []  # said by `reachable`
    name = await name_of(patient)
    if name is None:
        remedy = "wait until it has loaded its model; it is asked again until it says what it is"
        return [Finding(check="engine", level=Level.NOTE, what="it is still starting", remedy=remedy)]
    profile = profile_of(name)
    if models.status in (401, 403):
        remedy = "give `--api-key-env NAME`, the name of a variable that holds a key of the engine"
        what = f"{profile.title}: it wants a key, so no more was asked"
        return [Finding(check="engine", level=Level.NOTE, what=what, remedy=remedy)]
    names = model_names(models)
    what = f"{profile.title}{_version_of(version)}, models: {', '.join(names) or 'none listed'}"
    found = [Finding(check="engine", level=Level.OK, what=what)]
    if profile is UNKNOWN:
        found[0] = Finding(
            check="engine",
            level=Level.NOTE,
            what=f"it is none that we know; models: {', '.join(names) or 'none listed'}",
            remedy="it will be asked for nothing that it might refuse; if you know what it is, set `upstream.engine`",
        )
    if models.status == 200 and not names:
        remedy = "load a model, or see whether `upstream.url` is the engine's own address and not a gateway's"
        found.append(Finding(check="models", level=Level.WARNING, what="/v1/models lists no model", remedy=remedy))
    elif profile.asked is Asked.CONTINUOUS:
        found += await _usage(patient, profile, names[0]) if names and patient.options.request else []
    elif profile.flags != NO_FLAGS:
        what = f"counts of {profile.title} that need a flag were not looked at"
        found.append(Finding(check="engine flags", level=Level.NOTE, what=what, remedy=profile.flags))
    return found


async def name_of(patient: Patient) -> str | None:
    """Return what the engine is, as the relay finds out; None while it is starting."""
    name = patient.config.upstream.engine
    return await identify(lambda path: _answer(patient, path.decode())) if name == AUTO else name


async def _answer(patient: Patient, path: str) -> Answer:
    """Ask as the relay's probe does; no answer is one of status 0."""
    reply = await patient.engine(path)
    headers = {name.encode(): value.encode("utf-8", "replace") for name, value in reply.headers.items()}
    return Answer(reply.status, headers, reply.body)


async def _usage(patient: Patient, profile: Profile, model: str) -> list[Finding]:
    """Ask for one token, as the relay would ask, and look at what comes with it."""
    reply = await patient.engine("/v1/chat/completions", _ASK_ONE_TOKEN | {"model": model})
    if reply.status != 200:
        what = f"a chat of one token with `{model}` got {reply.status or reply.error}"
        remedy = "a base model without a chat template answers 400, which is no fault; else look at the engine's log"
        return [Finding(check="usage", level=Level.WARNING, what=what, remedy=remedy)]
    events = _events(reply.body)
    usages = [event.get("usage") for event in events]
    running = [usage for event, usage in zip(events, usages, strict=True) if usage and event.get("choices")]
    if not any(usages):
        remedy = "upgrade the engine, or live with estimates: `inferwatch_tokens_by_source_total` tells how many"
        return [_fault("usage", "streams carry no token counts", remedy)]
    found = [Finding(check="usage", level=Level.OK, what="streams carry running token counts")]
    if not running:
        what = "streams carry a count at their end only: those hung up on will be estimates"
        found = [Finding(check="usage", level=Level.WARNING, what=what, remedy=f"upgrade {profile.title}")]
    last: dict[str, Any] = next(usage for usage in reversed(usages) if usage)
    if last.get("prompt_tokens_details") is None:
        remedy = f"start {profile.title} with flags that tell more: {profile.flags}"
        what = "cached prompt tokens are not reported"
        found.append(Finding(check="engine flags", level=Level.NOTE, what=what, remedy=remedy))
    if profile is VLLM and not any(event.get("metrics") for event in events):
        remedy = "start vLLM with `--enable-per-request-metrics`, to tell queue from prefill in each request's time"
        what = "the engine's own times of a request are not reported"
        found.append(Finding(check="engine flags", level=Level.NOTE, what=what, remedy=remedy))
    return found


async def metrics(patient: Patient) -> list[Finding]:
    """Whether the engine's own metrics can be read."""
    wanted = patient.config.engine_metrics
    if not wanted.enabled:
        what = "not read (`engine_metrics.enabled: false`): queue, KV cache and bypassed traffic are unknown"
        return [Finding(check="engine metrics", level=Level.NOTE, what=what)]
    if wanted.url:
        replies = {wanted.url: await patient.get(wanted.url)}
    else:
        replies = {path: await patient.engine(path) for path in METRICS_PATHS}
    if all(reply.status == 0 for reply in replies.values()) and not wanted.url:
        return []  # said by `reachable`
    for place, reply in replies.items():
        if reply.status == 200 and b"# TYPE" in reply.body:
            return [Finding(check="engine metrics", level=Level.OK, what=f"{place} is there")]
    answers = ", ".join(f"{place}: {reply.status or reply.error}" for place, reply in replies.items())
    remedy = (
        "start the engine with its metrics on (SGLang and TensorRT-LLM: `--enable-metrics`, llama.cpp: `--metrics`; "
        "vLLM: without `--disable-log-stats`), or name the place in `engine_metrics.url`"
    )
    what = f"none found ({answers}): queue, KV cache and bypassed traffic stay unknown"
    return [Finding(check="engine metrics", level=Level.WARNING, what=what, remedy=remedy)]


def _fault(check: str, what: str, remedy: str) -> Finding:
    return Finding(check=check, level=Level.FAULT, what=what, remedy=remedy)


def _remedy_unreachable(patient: Patient, error: str) -> str:
    upstream = patient.config.upstream
    if "certificate" in error:
        return "name its CA in `upstream.tls_ca_file`"
    if "name" in error:
        return "correct the host in `upstream.url`, or let this host resolve it"
    if "HTTP" in error:
        return f"something else listens on port {upstream.port}: set `upstream.url` to the engine"
    return "start the engine, or set `upstream.url` (`--upstream`) to where it listens"


def _skew_s(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return None


def _is_vllm(version: Reply) -> bool:
    loaded = version.json
    return isinstance(loaded, dict) and set(loaded) == {"version"} and isinstance(loaded["version"], str)


def _version_of(version: Reply) -> str:
    return f" {version.json['version']}" if _is_vllm(version) else ""


def model_names(models: Reply) -> list[str]:
    """Return the models in an answer of /v1/models."""
    loaded = models.json
    rows = loaded.get("data") if isinstance(loaded, dict) else None
    names = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return [name for name in names if isinstance(name, str)]


def _events(body: bytes) -> list[dict[str, Any]]:
    events = []
    for line in body.splitlines():
        if line.startswith(b"data: {"):
            try:
                event = msgspec.json.decode(line.removeprefix(b"data: "))
            except (ValueError, RecursionError):
                continue
            events.append(event)
    return events
