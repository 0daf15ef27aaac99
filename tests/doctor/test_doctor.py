"""`inferwatch doctor`: each planted fault is found, with what to do about it; on a healthy host nothing is."""

import asyncio
import datetime as dt
import email.utils
import json
import os
import resource
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web
from otlp_receiver import grpc_receiver, http_receiver

from inferwatch import cli, config
from inferwatch.doctor import canary, engine, files, machine, services
from inferwatch.doctor.command import CHECKS
from inferwatch.doctor.finding import Finding, Level, as_json, as_text, worst
from inferwatch.doctor.patient import Options, Patient
from inferwatch.engines import PROFILES
from inferwatch_collectors.canary.asking import body_of
from inferwatch_simulator import server
from inferwatch_simulator.config import SimulatorConfig

Check = Callable[[Patient], Awaitable[list[Finding]]]
Serve = Callable[[dict[str, Any]], Awaitable[str]]

NONE, NOTE, WARNING, FAULT = Level


@pytest.fixture(name="session")
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(name="serve")
async def _serve() -> AsyncIterator[Serve]:
    """Serve these answers: path -> body (JSON or text), (status, body), or a whole response; return the URL."""
    runners: list[web.AppRunner] = []

    async def serve(pages: dict[str, Any]) -> str:
        async def answer(request: web.Request) -> web.StreamResponse:
            page = pages.get(request.path, (404, ""))
            status, body = page if isinstance(page, tuple) else (200, page)
            text = body if isinstance(body, str) else json.dumps(body)
            headers = {"date": pages["date"]} if "date" in pages else None
            return web.Response(status=status, text=text, headers=headers)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return "http://127.0.0.1:{1}".format(*runner.addresses[0])

    yield serve
    for runner in runners:
        await runner.cleanup()


@pytest.fixture(name="patient")
def _patient(session: aiohttp.ClientSession, free_port: Callable[[], int], tmp_path: Path) -> Callable[..., Patient]:
    """Make a patient with free ports; keyword arguments are options, `keys` configuration."""

    async def patient(keys: dict[str, Any] | None = None, **options: Any) -> Patient:
        ours = {
            "listen": f"127.0.0.1:{free_port()}",
            "admin": f"127.0.0.1:{free_port()}",
            "state_dir": str(tmp_path / "state"),
            "gpu.source": "none",
        }
        loaded = await asyncio.to_thread(config.load, environ={}, flags=ours | (keys or {}))
        return Patient(loaded, Options(**options), session)

    return patient


async def only(check: Check, patient: Patient, level: Level, *words: str) -> Finding:
    """Return the one finding of `level`; it says these words, in `what` or in `remedy`, and is no bare complaint."""
    (found,) = [finding for finding in await check(patient) if finding.level is level]
    assert found.remedy
    for word in words:
        assert word in f"{found.what} {found.remedy}"
    return found


VLLM = {
    "/health": "",
    "/version": {"version": "0.32.0"},
    "/v1/models": {"data": [{"id": "m"}]},
    "/metrics": "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\n",
}


def stream(*events: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def chat(usage: Any, last: Any, metrics: Any = None) -> str:
    token = {"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": usage}
    return stream(token, {"choices": [], "usage": last, "metrics": metrics})


COUNTS = {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 0}}


# --- the engine


async def test_an_engine_that_is_down(patient: Any, free_port: Any) -> None:
    """Nobody listens there."""
    keys = {"upstream.url": f"http://127.0.0.1:{free_port()}"}
    await only(engine.reachable, await patient(keys), FAULT, "Connection refused", "start the engine")


async def test_a_host_that_is_not_known(patient: Any) -> None:
    """The name cannot be resolved."""
    await only(engine.reachable, await patient({"upstream.url": "http://nobody.invalid:8000"}), FAULT, "`upstream.url`")


async def test_a_port_that_does_not_speak_http(patient: Any) -> None:
    """Something else listens."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        await only(engine.reachable, await patient({"upstream.url": f"http://127.0.0.1:{port}"}), FAULT, "not HTTP")


async def test_a_certificate_that_nobody_trusts(patient: Any) -> None:
    """The engine's CA is not the system's."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    app = web.AppRunner(web.Application())
    await app.setup()
    await web.TCPSite(app, "127.0.0.1", 0, ssl_context=context).start()
    url = "https://127.0.0.1:{1}".format(*app.addresses[0])
    try:
        await only(
            engine.reachable, await patient({"upstream.url": url}), FAULT, "not trusted", "`upstream.tls_ca_file`"
        )
    finally:
        await app.cleanup()


async def test_an_engine_that_is_not_well(patient: Any, serve: Serve) -> None:
    """Its health check fails."""
    url = await serve(VLLM | {"/health": (503, "")})
    await only(engine.reachable, await patient({"upstream.url": url}), FAULT, "503", "log")


async def test_clocks_that_differ(patient: Any, serve: Serve) -> None:
    """Its clock is an hour ahead."""
    url = await serve(VLLM | {"date": email.utils.formatdate(time.time() + 3600, usegmt=True)})
    await only(engine.reachable, await patient({"upstream.url": url}), WARNING, "s from this host's", "NTP")


async def test_an_engine_that_wants_a_key(patient: Any, serve: Serve) -> None:
    """Without one, no more can be asked; with one, it is."""
    url = await serve(VLLM | {"/v1/models": (401, "")})
    await only(engine.identified, await patient({"upstream.url": url}), NOTE, "--api-key-env")


async def test_an_engine_that_nobody_knows(patient: Any, serve: Serve) -> None:
    """It is asked for nothing, and that is said."""
    url = await serve({"/v1/models": {"data": [{"id": "m"}]}})
    await only(engine.identified, await patient({"upstream.url": url}), NOTE, "none that we know", "`upstream.engine`")


async def test_an_engine_without_models(patient: Any, serve: Serve) -> None:
    """A gateway, perhaps."""
    url = await serve(VLLM | {"/v1/models": {"data": []}})
    await only(engine.identified, await patient({"upstream.url": url}), WARNING, "no model")


@pytest.mark.parametrize(
    ("reply", "level", "words"),
    [
        pytest.param(chat(None, None), FAULT, ["no token counts"], id="no usage"),
        pytest.param(chat(None, COUNTS, {"ttft": 1}), WARNING, ["at their end only"], id="final usage only"),
        pytest.param((400, "no chat template"), WARNING, ["400", "template"], id="a base model"),
    ],
)
async def test_engines_that_do_not_count_well(
    patient: Any, serve: Serve, reply: Any, level: Level, words: list[str]
) -> None:
    """One token is asked for, as the relay would."""
    url = await serve(VLLM | {"/v1/chat/completions": reply})
    await only(engine.identified, await patient({"upstream.url": url}), level, *words)


async def test_flags_that_the_engine_misses(patient: Any, serve: Serve) -> None:
    """Each is named."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    url = await serve(VLLM | {"/v1/chat/completions": chat(usage, usage)})
    notes = [
        each.remedy for each in await engine.identified(await patient({"upstream.url": url})) if each.level is NOTE
    ]
    assert ["--enable-prompt-tokens-details" in notes[0], "--enable-per-request-metrics" in notes[1]] == [True, True]


async def test_no_token_is_asked_for_if_it_must_not(patient: Any, serve: Serve) -> None:
    """`--no-request`: the page that would be a fault is never seen."""
    url = await serve(VLLM | {"/v1/chat/completions": (500, "")})
    found = await engine.identified(await patient({"upstream.url": url}, request=False))
    assert worst(found) is NONE


async def test_an_engine_without_metrics(patient: Any, serve: Serve) -> None:
    """Both usual places were tried."""
    url = await serve(VLLM | {"/metrics": (404, "")})
    await only(engine.metrics, await patient({"upstream.url": url}), WARNING, "/prometheus/metrics", "--enable-metrics")


async def test_metrics_at_a_wrong_place(patient: Any, serve: Serve) -> None:
    """`engine_metrics.url` names a page that is none."""
    url = await serve(VLLM)
    keys = {"upstream.url": url, "engine_metrics.url": f"{url}/stats"}
    await only(engine.metrics, await patient(keys), WARNING, "/stats: 404", "`engine_metrics.url`")


# --- the machine


@pytest.mark.parametrize("key", ["listen", "admin"])
async def test_a_port_that_is_taken(patient: Any, key: str) -> None:
    """By somebody who is not Inferwatch."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        keys = {key: "127.0.0.1:{1}".format(*taken.getsockname())}
        await only(machine.ports, await patient(keys), FAULT, key, "Address already in use", f"--{key}")


async def test_a_port_that_an_inferwatch_has(patient: Any, serve: Serve) -> None:
    """That is no fault: it runs."""
    url = await serve({"/version": {"version": "9.9"}})
    found = await machine.ports(await patient({"admin": url.removeprefix("http://")}))
    assert worst(found) is NOTE  # it listens on loopback
    assert any("Inferwatch 9.9 runs" in finding.what for finding in found)


@pytest.mark.parametrize(
    ("told", "level", "words"),
    [
        ("0.0.0.0:{port}", NONE, ["Inferwatch 9.9 runs"]),
        (
            "127.0.0.1:1",
            FAULT,
            ["Address already in use, and not by the Inferwatch that runs", "127.0.0.1:1", "--listen"],
        ),
        ("127.0.0.1:0", NOTE, ["does not say whether by it", "--token-file"]),
        (7, NOTE, ["does not say whether by it", "--token-file"]),
        (None, NOTE, ["does not say whether by it", "--token-file"]),
    ],
)
async def test_a_data_port_that_is_taken_while_an_inferwatch_runs(
    patient: Any, serve: Serve, told: object, level: Level, words: list[str]
) -> None:
    """By it, if it listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        listen = told.format(port=port) if isinstance(told, str) else told
        pages = {"/version": {"version": "9.9"}} | ({} if told is None else {"/config": {"listen": listen}})
        url = await serve(pages)
        examined = await patient({"admin": url.removeprefix("http://"), "listen": f"127.0.0.1:{port}"})
        (found,) = [each for each in await machine.ports(examined) if each.what.startswith("listen ")]
    assert found.level is level
    for word in words:
        assert word in f"{found.what} {found.remedy}"


async def test_a_state_folder_that_cannot_be_made(patient: Any, tmp_path: Path) -> None:
    """A file is in the way."""
    (tmp_path / "file").touch()
    keys = {"state_dir": str(tmp_path / "file" / "state")}
    await only(machine.state, await patient(keys), FAULT, "cannot be written", "--state-dir")


async def test_a_disk_that_is_nearly_full(patient: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is left."""
    monkeypatch.setattr(machine, "ENOUGH_DISK_BYTES", 2**62)
    await only(machine.state, await patient(), WARNING, "MiB are free", "ledger.retention_days")


async def test_too_few_open_files(patient: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft limit is of no matter: `serve` raises it as far as it may."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 2048))
    await only(machine.limits, await patient(), WARNING, "2048", "1024 streams", "LimitNOFILE")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    assert worst(await machine.limits(await patient())) is NONE


async def test_shared_memory_that_is_not_there(patient: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It matters only with budgets."""
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "none")
    assert worst(await machine.limits(await patient())) in (NONE, WARNING)
    keys = {"budgets": {"rules": [{"name": "b", "limit": 1}]}}
    found = [each for each in await machine.limits(await patient(keys)) if "cannot be written" in each.what]
    assert [each.level for each in found] == [WARNING]


@pytest.mark.parametrize(
    ("library", "level"), [pytest.param("", NOTE, id="no driver"), pytest.param("/nowhere.so", WARNING, id="not there")]
)
async def test_gpus_that_cannot_be_read(patient: Any, library: str, level: Level) -> None:
    """A host without a GPU is healthy; a library that was named and is not there is a mistake."""
    keys = {"gpu.source": "auto", "gpu.nvml_library": library}
    await only(machine.gpu, await patient(keys), level, "NVIDIA_VISIBLE_DEVICES")


@pytest.mark.parametrize(("source", "words"), [("amd", "amdsmi"), ("simulated", "inferwatch simulate")])
async def test_the_source_that_is_configured_is_asked(patient: Any, source: str, words: str) -> None:
    """Who has named another is not told to install NVIDIA's library."""
    (finding,) = await machine.gpu(await patient({"gpu.source": source}))
    assert (finding.level, words in finding.remedy) == (WARNING, True)
    assert "NVIDIA" not in finding.what + finding.remedy


async def test_a_simulated_gpu_is_one(patient: Any, serve: Serve) -> None:
    """Under the name that it goes by."""
    url = await serve({"/simulator/gpu": (200, '{"model": "simulated GPU"}')})
    (finding,) = await machine.gpu(await patient({"gpu.source": "simulated", "upstream.url": url}))
    assert (finding.level, finding.what) == (NONE, "1: simulated GPU")


# --- files


async def test_keys_that_cannot_be_read(patient: Any) -> None:
    """The file is not there."""
    keys = {"tenants": {"known": [{"name": "acme", "keys_file": "/nowhere"}]}}
    await only(files.tenants, await patient(keys), FAULT, "tenants.known[0].keys_file")


async def test_keys_that_everybody_can_read(patient: Any, tmp_path: Path) -> None:
    """They are secrets."""
    path = tmp_path / "keys"
    path.write_text("sk-acme-000000000000000000\n")
    path.chmod(0o644)
    keys = {"tenants": {"known": [{"name": "acme", "keys_file": str(path)}]}}
    await only(files.tenants, await patient(keys), WARNING, f"chmod o-r {path}")


def certificate(tmp_path: Path, ends: dt.timedelta) -> dict[str, str]:
    """Write a certificate that ends so long from now; return the keys that name it."""
    now = dt.datetime.now(dt.UTC)
    issued = trustme.CA().issue_cert("localhost", not_before=now - dt.timedelta(30), not_after=now + ends)
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    return {"tls.cert_file": str(tmp_path / "cert.pem"), "tls.key_file": str(tmp_path / "cert.pem")}


@pytest.mark.parametrize(
    ("days", "level", "word"),
    [(-1, FAULT, "expired"), (5.5, WARNING, "ends in"), (300, NONE, "good for 300 days")],
)
async def test_the_certificate_that_clients_see(
    patient: Any, tmp_path: Path, days: float, level: Level, word: str
) -> None:
    """It says when it will end, and that it has."""
    unchecked = await patient()
    flags = certificate(tmp_path, dt.timedelta(days=days))
    unchecked.config = await asyncio.to_thread(config.load, environ={}, flags=flags)
    (found,) = await files.certificate(unchecked)
    assert (found.level, word in found.what) == (level, True)


async def test_no_money(patient: Any) -> None:
    """Neither prices nor a bill."""
    await only(files.prices, await patient(), NOTE, "`cost.hourly_dollars`")


# --- services


@pytest.mark.parametrize(
    ("metric", "word"),
    [
        ("inferwatch_ledger_durable 0", "not on disk"),
        ("inferwatch_config_last_reload_successful 0", "check-config"),
        ('inferwatch_tap_lost_total{worker="0"} 3', "tap.max_spool_bytes"),
        ('inferwatch_relay_observer_errors_total{worker="0"} 1', "report"),
        ('inferwatch_collector_observer_errors_total{stage="read"} 1', "report"),
        ('inferwatch_capture_ratio{upstream="a:1",type="prompt"} 0.5', "directly"),
    ],
)
async def test_what_a_running_inferwatch_says_of_itself(patient: Any, serve: Serve, metric: str, word: str) -> None:
    """Each bad sign is a warning; the same with good values is none."""
    pages = {"/version": {"version": "9.9"}, "/readyz": "", "/metrics": f"{metric}\n"}
    sick = await patient({"admin": (await serve(pages)).removeprefix("http://")})
    await only(services.running, sick, WARNING, word)
    name = metric.rpartition(" ")[0]
    good = 0 if "_total" in name else 1
    well = await patient({"admin": (await serve(pages | {"/metrics": f"{name} {good}\n"})).removeprefix("http://")})
    assert worst(await services.running(well)) is NONE


async def test_an_inferwatch_that_is_not_ready(patient: Any, serve: Serve) -> None:
    """Its engine is down, say."""
    pages = {"/version": {"version": "9.9"}, "/readyz": (503, ""), "/metrics": ""}
    sick = await patient({"admin": (await serve(pages)).removeprefix("http://")})
    await only(services.running, sick, FAULT, "/readyz")


async def test_an_inferwatch_that_wants_its_token(patient: Any, serve: Serve) -> None:
    """It runs, and that is all that can be seen; the port is not taken by a stranger."""
    url = await serve({"/version": (401, "a token is needed: … `access.token_file`")})
    locked_out = await patient({"admin": url.removeprefix("http://")})
    await only(services.running, locked_out, NOTE, "--token-file", "$INFERWATCH_TOKEN")
    assert FAULT not in {finding.level for finding in await machine.ports(locked_out)}


async def test_a_token_that_cannot_be_read(patient: Any, tmp_path: Path) -> None:
    """`serve` would not start."""
    keys = {"access.token_file": str(tmp_path / "none")}
    await only(machine.access, await patient(keys), FAULT, "access.token_file", "openssl rand -hex 32")
    keys = {"feedback.token_file": str(tmp_path / "none")}
    await only(machine.access, await patient(keys), FAULT, "feedback.token_file", "openssl rand -hex 32")


async def test_an_admin_port_that_everybody_reaches(patient: Any, tmp_path: Path) -> None:
    """Without a token that is a warning, with one it is not."""
    keys = {"admin": "0.0.0.0:9480"}
    await only(machine.access, await patient(keys), WARNING, "0.0.0.0:9480", "`access.token_file`")
    (tmp_path / "token").write_text("0123456789abcdef")
    votes = await patient(keys | {"feedback.token_file": str(tmp_path / "token")})
    await only(machine.access, votes, WARNING, "0.0.0.0:9480", "`access.token_file`")
    guarded = await patient(keys | {"access.token_file": str(tmp_path / "token")})
    assert worst(await machine.access(guarded)) is NONE


def instant(*stamps: float) -> dict[str, Any]:
    rows = [{"metric": {}, "value": [0, str(stamp)]} for stamp in stamps]
    return {"status": "success", "data": {"resultType": "vector", "result": rows}}


@pytest.mark.parametrize(
    ("page", "word"),
    [
        pytest.param(instant(), "no fresh series", id="nothing of ours"),
        pytest.param(instant(5.0), "no fresh series", id="long ago"),
        pytest.param((404, ""), "404", id="no Prometheus"),
        pytest.param("{}", "http://prometheus:9090", id="another API"),
    ],
)
async def test_a_prometheus_that_does_not_scrape_us(patient: Any, serve: Serve, page: Any, word: str) -> None:
    """It is asked for our series."""
    url = await serve({"/api/v1/query": page})
    await only(services.prometheus, await patient(prometheus=url), FAULT, word)


async def test_a_prometheus_that_scrapes_us(patient: Any, serve: Serve) -> None:
    """A fresh series."""
    url = await serve({"/api/v1/query": instant(time.time() - 5)})
    assert worst(await services.prometheus(await patient(prometheus=url))) is NONE


async def test_the_live_pages_prometheus_is_asked_for_this_host(patient: Any, serve: Serve, tmp_path: Path) -> None:
    """Without a flag it is that of the configuration, with its label and its token."""
    url = await serve({"/api/v1/query": instant(time.time() - 5)})
    keys = {"live.prometheus_url": url, "live.instance": "host"}
    assert worst(await services.prometheus(await patient(keys))) is NONE
    keys["live.prometheus_token_file"] = str(tmp_path / "none")
    await only(services.prometheus, await patient(keys), FAULT, "live.prometheus_token_file")
    empty = await serve({"/api/v1/query": instant()})
    await only(
        services.prometheus,
        await patient({"live.prometheus_url": empty, "live.instance": "host"}),
        FAULT,
        '{instance="host"}',
    )


# --- embeddings

EMBEDS = {"drift.text": True, "drift.embeddings.model": "e5"}
EMBEDDED = {"model": "e5", "data": [{"index": 0, "embedding": [0.1] * 384}]}


async def test_an_endpoint_that_embeds(patient: Any, serve: Serve) -> None:
    """Somebody else's, or the engine; that is not asked if it must not be. Without one there is nothing to say."""
    assert await services.embeddings(await patient({})) == []
    url = await serve({"/v1/embeddings": EMBEDDED})
    own = {"drift.embeddings.url": "own", "upstream.url": url}
    for keys in ({"drift.embeddings.url": url}, own):
        (found,) = await services.embeddings(await patient(EMBEDS | keys))
        assert (found.level, found.what) == (NONE, f"{url} embeds, in 384 dimensions")
    (found,) = await services.embeddings(await patient(EMBEDS | own, request=False))
    assert found.level is NOTE


@pytest.mark.parametrize(
    ("pages", "words"),
    [
        ({"/v1/embeddings": (401, "")}, ["401", "drift.embeddings.token_file"]),
        ({}, ["404", "without /v1/embeddings"]),
        ({"/v1/embeddings": "hello"}, ["not one of embeddings"]),
        ({"/v1/embeddings": {"data": []}}, ["not one of embeddings"]),
    ],
)
async def test_an_endpoint_that_does_not_embed(
    patient: Any, serve: Serve, pages: dict[str, Any], words: list[str]
) -> None:
    """By what it answers."""
    keys = EMBEDS | {"drift.embeddings.url": await serve(pages)}
    await only(services.embeddings, await patient(keys), FAULT, *words)


async def test_embeddings_that_cannot_be_asked_for(patient: Any, free_port: Any, tmp_path: Path) -> None:
    """Nobody there; a token that cannot be read."""
    keys = EMBEDS | {"drift.embeddings.url": f"http://127.0.0.1:{free_port()}"}
    await only(services.embeddings, await patient(keys), FAULT, "drift is judged without it")
    token = {"drift.embeddings.token_file": str(tmp_path / "none")}
    await only(services.embeddings, await patient(keys | token), FAULT, "drift.embeddings.token_file")


# --- OTLP


@pytest.fixture(name="no_otel_variables")
def _no_otel_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    return monkeypatch


async def test_otlp_that_is_taken(patient: Any, no_otel_variables: pytest.MonkeyPatch) -> None:
    """An empty request for each signal that is exported; what is not exported is not asked for."""
    assert await services.otlp(await patient()) == []
    with http_receiver() as (url, received):
        found = await services.otlp(await patient({"otlp.traces": True, "otlp.logs": True, "otlp.endpoint": url}))
    assert [(each.level, each.what.partition(":")[0]) for each in found] == [(NONE, "traces"), (NONE, "logs")]
    assert received.spans == received.logs == []


@pytest.mark.parametrize(
    ("pages", "words"),
    [
        ({"/v1/traces": (401, "")}, ["401", "OTEL_EXPORTER_OTLP_HEADERS"]),
        ({}, ["404", "without /v1/"]),
        ({"/v1/traces": (503, "")}, ["503", "start an OpenTelemetry collector"]),
    ],
)
async def test_an_endpoint_that_takes_nothing(
    patient: Any, serve: Serve, no_otel_variables: pytest.MonkeyPatch, pages: dict[str, Any], words: list[str]
) -> None:
    """By what it answers."""
    keys = {"otlp.traces": True, "otlp.endpoint": await serve(pages)}
    await only(services.otlp, await patient(keys), FAULT, *words)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_an_endpoint_that_is_away(
    patient: Any, free_port: Any, no_otel_variables: pytest.MonkeyPatch, protocol: str
) -> None:
    """Nobody listens; the address may be the environment's."""
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    keys = {"otlp.traces": True, "otlp.protocol": protocol}
    found = await only(services.otlp, await patient(keys), FAULT, "`otlp.endpoint`")
    assert "refused" in found.what.lower() or "Connect call failed" in found.what


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("place", ["http://[", "http://user:pa/ss@[", "user:pa/ss@127.0.0.1:port"])
async def test_an_endpoint_that_is_none(
    patient: Any, no_otel_variables: pytest.MonkeyPatch, protocol: str, place: str
) -> None:
    """A finding like others; a password in it is not printed."""
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", place)
    keys = {"otlp.traces": True, "otlp.protocol": protocol}
    found = await only(services.otlp, await patient(keys), FAULT, "`otlp.endpoint`")
    assert not any(word in found.what for word in ("user", "pa/", "ss@"))


async def test_an_endpoint_that_sends_on(patient: Any, serve: Serve, no_otel_variables: pytest.MonkeyPatch) -> None:
    """Exporters do not follow, and neither does a header with a token."""
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPTemporaryRedirect("/elsewhere")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", elsewhere)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://127.0.0.1:{1}".format(*runner.addresses[0])
    await only(services.otlp, await patient({"otlp.traces": True, "otlp.endpoint": url}), FAULT, "answers 307")
    await runner.cleanup()
    assert asked == ["/v1/traces"]


async def test_an_endpoint_that_wants_to_know_who_we_are(
    patient: Any, no_otel_variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The certificate and the key that the exporter would show are shown."""
    authority = trustme.CA()
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(theirs)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    ours = authority.issue_cert("inferwatch.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")

    async def taken(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", taken)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=theirs).start()
    keys = {"otlp.traces": True, "otlp.endpoint": "https://127.0.0.1:{1}".format(*runner.addresses[0])}
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
    assert worst(await services.otlp(await patient(keys))) is FAULT
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(tmp_path / "cert.pem"))
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(tmp_path / "key.pem"))
    assert worst(await services.otlp(await patient(keys))) is NONE
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(tmp_path / "none.pem"))
    await only(services.otlp, await patient(keys), FAULT, "files of certificates: No such file")
    await runner.cleanup()


async def test_otlp_over_grpc(patient: Any, no_otel_variables: pytest.MonkeyPatch) -> None:
    """A connection is enough; and a variable that makes no sense is named."""
    with grpc_receiver() as (url, _):
        keys = {"otlp.metrics": True, "otlp.protocol": "grpc", "otlp.endpoint": url}
        assert worst(await services.otlp(await patient(keys))) is NONE
    no_otel_variables.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    await only(services.otlp, await patient({"otlp.traces": True}), FAULT, "OTEL_TRACES_EXPORTER")


# --- the canary

CANARY = {"canary.enabled": True, "upstream.engine": "vllm"}
MODELS = {"data": [{"id": "m"}, {"id": "other"}]}


def with_logprobs(count: int) -> dict[str, Any]:
    """Return a reply of /v1/completions with so many."""
    tops = {f"token {number}": -1.0 - number for number in range(count)}
    return {
        "choices": [{"index": 0, "text": "token 0", "logprobs": {"top_logprobs": [tops]}, "finish_reason": "length"}]
    }


@pytest.mark.parametrize("api", ["completions", "chat"])
async def test_an_engine_that_gives_logprobs(patient: Any, api: str) -> None:
    """To either kind of request; it is not asked if it must not be, and nothing is said of a canary that is off."""
    async with await server.start(SimulatorConfig(port=0, host="127.0.0.1")) as running:
        keys = {"canary.enabled": True, "canary.api": api, "upstream.url": running.url}
        (found,) = await canary.logprobs(await patient(keys))
        assert found.level is NONE
        assert "gives 5 log-probabilities" in found.what
        assert await canary.logprobs(await patient({"upstream.url": running.url})) == []
        (found,) = await canary.logprobs(await patient(keys, request=False))
        assert found.level is NOTE


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"choices": [{"text": "a", "logprobs": None}]}, ["200", "no_logprobs", "canary.enabled: false"]),
        (with_logprobs(2), ["200", "not with 5", "no_logprobs"]),
        ("hello", ["200", "malformed"]),
        (with_logprobs(5_000), ["200", "too_large"]),
        ((400, {"error": {"message": "at most\n3 log-probabilities"}}), ["400: at most 3 log", "canary.top_logprobs"]),
        ((422, {"error": "no such field"}), ["422: no such field", "canary.top_logprobs"]),
        ((400, {"message": "no logprobs here"}), ["400: no logprobs here"]),
        ((400, {"error": {"message": 7}}), ["answers 400", "canary.api"]),
        ((400, "[" * 100_000), ["answers 400", "canary.api"]),
        ((401, {"error": "key sk-1 is wrong"}), ["answers 401", "canary.key_env"]),
        ((404, ""), ["404", "canary.models", "canary.api"]),
        ((429, ""), ["429", "less to do"]),
        ((500, ""), ["500", "log"]),
    ],
)
async def test_an_engine_whose_logprobs_are_of_no_use(patient: Any, serve: Serve, reply: Any, words: list[str]) -> None:
    """It ignores what is asked, refuses it, or has something else: what it answered, and what to do."""
    url = await serve({"/v1/models": MODELS, "/v1/completions": reply})
    found = await only(canary.logprobs, await patient(CANARY | {"upstream.url": url}), FAULT, *words)
    assert "sk-1" not in found.what
    assert len(found.what) < 400


async def test_each_model_of_the_canary_is_asked_with_its_key(
    patient: Any, free_port: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body and the key are those of the probe, whatever key doctor has."""
    asked: list[tuple[str | None, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        asked.append((request.headers.get("authorization"), body))
        return web.json_response(with_logprobs(body["logprobs"]), status=200 if body["model"] == "a" else 404)

    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    monkeypatch.setenv("OUR_KEY", "secret\n")
    keys = CANARY | {"upstream.url": f"http://127.0.0.1:{port}", "canary.models": ["a", "b"]}
    keys |= {"canary.key_env": "OUR_KEY", "canary.priority": 5, "canary.prompts": ["Once"]}
    try:
        examined = await patient(keys, api_key="doctor's")
        found = await canary.logprobs(examined)
    finally:
        await runner.cleanup()
    assert [each.level for each in found] == [NONE, FAULT]
    sent = [("Bearer secret", body_of(examined.config.canary, model, "Once", "vllm")) for model in "ab"]
    assert sorted(asked, key=lambda each: each[1]["model"]) == sent
    assert sent[0][1]["priority"] == 5


async def test_a_canary_that_has_nobody_to_ask(patient: Any, serve: Serve, free_port: Any) -> None:
    """An engine that lists no model, or not without a key; one that is away is said elsewhere, unless it is asked."""
    for page, word in (({"data": []}, "200"), ((401, ""), "401")):
        keys = CANARY | {"upstream.url": await serve({"/v1/models": page})}
        await only(canary.logprobs, await patient(keys), FAULT, word, "canary.models", "canary.key_env")
    away = CANARY | {"upstream.url": f"http://127.0.0.1:{free_port()}"}
    assert await canary.logprobs(await patient(away)) == []
    await only(canary.logprobs, await patient(away | {"canary.models": ["m"]}), FAULT, "traffic does not wait")


async def test_keys_that_are_not_set(patient: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the configuration names and nobody set; not what is off."""
    monkeypatch.delenv("OUR_KEY", raising=False)
    named = {"canary.key_env": "OUR_KEY"}
    assert await files.keys(await patient(named)) == []
    await only(files.keys, await patient(CANARY | named), WARNING, "canary.key_env", "`OUR_KEY`", "`serve`")
    embeds = EMBEDS | {"drift.embeddings.url": "own", "drift.embeddings.key_env": "OUR_KEY"}
    await only(files.keys, await patient(embeds), WARNING, "drift.embeddings.key_env", "`OUR_KEY`")
    monkeypatch.setenv("OUR_KEY", "secret")
    assert await files.keys(await patient(CANARY | named)) == []


@pytest.mark.parametrize("value", [None, "", "\n"])
def test_the_key_for_an_examination_must_be_there(
    value: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who names a variable wants it used: exit code 2, in one line."""
    monkeypatch.delenv("OUR_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("OUR_KEY", value)
    assert cli.main(["doctor", "--api-key-env", "OUR_KEY"]) == 2
    told = "inferwatch: --api-key-env: there is no environment variable `OUR_KEY`, or it is empty\n"
    assert tuple(capsys.readouterr()) == ("", told)


async def test_the_key_for_an_examination_ends_before_its_line_break(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Kubernetes hands over what `echo` wrote into a secret; no header can carry it."""
    url = await serve(VLLM)
    monkeypatch.setenv("OUR_KEY", "secret\n")
    words = ["doctor", "--api-key-env", "OUR_KEY", "--upstream", url, "--no-request", "--state-dir", str(tmp_path)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "inferwatch", *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert b"ValueError" not in out
    assert b"upstream: " in out


# --- the whole


@pytest.mark.parametrize("persona", ["vllm", "tgi", "sglang", "trtllm", "llamacpp", "ollama", "transformers"])
async def test_each_engine_is_known_by_its_profile(patient: Any, persona: str) -> None:
    """As the relay knows it, and nothing is wrong with it."""
    simulated = SimulatorConfig(port=0, host="127.0.0.1", engine=persona, enable_prompt_tokens_details=True)
    async with await server.start(simulated) as running:
        found = await engine.identified(await patient({"upstream.url": running.url}))
    assert found[0].what.startswith(PROFILES[persona].title)
    assert [each for each in found if each.level in (WARNING, FAULT)] == []


async def test_nothing_is_wrong_on_a_healthy_host(patient: Any) -> None:
    """All checks, before an engine that counts: notes at most, but for this machine's own limits."""
    simulated = SimulatorConfig(port=0, host="127.0.0.1", enable_prompt_tokens_details=True)
    async with await server.start(simulated) as running:
        healthy = await patient({"upstream.url": running.url})
        found = [finding for check in CHECKS for finding in await check(healthy)]
    assert [each for each in found if each.level in (WARNING, FAULT) and each.check != "limits"] == []


def test_the_command(tmp_path: Path, free_port: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a finding, its remedy below; 1 for scripts if something is a fault; JSON has the same."""
    flags = ["--upstream", f"http://127.0.0.1:{free_port()}", "--state-dir", str(tmp_path)]
    flags += ["--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}"]
    assert cli.main(["doctor", *flags]) == 1
    text = capsys.readouterr().out
    assert "FAULT    upstream: " in text
    assert "         -> start the engine" in text
    assert cli.main(["doctor", "--json", *flags]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["worst"] == "fault"
    assert {"check", "level", "what", "remedy"} == set(told["findings"][0])


def test_a_wrong_configuration_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """It names the key, as every command does."""
    assert cli.main(["doctor", "--workers", "none"]) == 1
    assert "FAULT    config: workers: expected `int`, got `str`" in capsys.readouterr().out


def test_levels() -> None:
    """The worst of all counts; of nothing, nothing is wrong."""
    each = [Finding(check="x", level=level, what="w", remedy="r") for level in (NOTE, FAULT, NONE, WARNING)]
    assert (worst(each), worst(each[:1]), worst([])) == (FAULT, NOTE, NONE)
    assert as_text(each[:1]) == "note     x: w\n         -> r\n"
    assert json.loads(as_json(each[:1])) == {
        "worst": "note",
        "findings": [{"check": "x", "level": "note", "what": "w", "remedy": "r"}],
    }
