"""The simulated engine as an HTTP server: routes, heads, faults, and the end of connections.

A client that leaves takes its sequences with it at once: `handler_cancellation` cancels the handler when the
connection is lost, also while a request waits or is not streamed, and the handler's `finally` aborts.
"""

import asyncio
import email.utils
import os
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Self

import msgspec
import structlog
import uvloop
from aiohttp import web

from inferwatch_simulator import embeddings, faults
from inferwatch_simulator.answers import looped, refused
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.engine import Engine
from inferwatch_simulator.http_answers import before_head, open_stream, plain, read_body, send_body
from inferwatch_simulator.persona_app import PersonaApp
from inferwatch_simulator.personas import vllm_bodies
from inferwatch_simulator.personas.all import PERSONAS
from inferwatch_simulator.personas.fields import ApiError, flag, read_object
from inferwatch_simulator.personas.vllm_events import FAILURE, KEEP_ALIVE, ChatEvents, CompletionEvents
from inferwatch_simulator.personas.vllm_requests import Generation, chat_request, completion_request, render_chat
from inferwatch_simulator.personas.vllm_shapes import Identity, fingerprint_of
from inferwatch_simulator.replies import Reply, StreamReply
from inferwatch_simulator.sinks import Sink
from inferwatch_simulator.text import prompt_of

_KEEP_ALIVE_S = 5  # uvicorn closes idle connections this soon, and vLLM leaves it so
_MAX_HEAD_BYTES = 131_072  # uvicorn takes long heads
_STREAM_HEAD = {"content-type": "text/event-stream; charset=utf-8", "vary": "Origin"}
_BACKLOG = 2048  # connections that arrive together, as uvicorn's

_log = structlog.get_logger("inferwatch.simulator")

_Handler = Callable[[web.BaseRequest, faults.FaultPlan], Awaitable[web.StreamResponse]]


class CannotListenError(Exception):
    """There is no such address here, or it is taken; one line."""


class RunningSimulator:
    """A started simulator. `url` has no trailing slash; `close` aborts what is still running."""

    def __init__(self, config: SimulatorConfig, engine: Callable[[SimulatorConfig], Engine]) -> None:
        self.engine = engine(config)
        persona = PERSONAS.get(config.engine)
        self._app = _App(config, self.engine) if persona is None else PersonaApp(config, self.engine, persona)
        self._runner = web.ServerRunner(
            web.Server(
                self._app.handle,
                handler_cancellation=True,
                access_log=None,
                keepalive_timeout=_KEEP_ALIVE_S,
                max_line_size=_MAX_HEAD_BYTES,
                max_field_size=_MAX_HEAD_BYTES,
            ),
            shutdown_timeout=0.1,
        )
        self.config = config
        self.url = ""

    async def _start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, self.config.host, self.config.port, backlog=_BACKLOG).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def close(self) -> None:
        """Stop listening, drop every connection, stop the engine."""
        self.engine.close()
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def start(config: SimulatorConfig, engine: Callable[[SimulatorConfig], Engine] = Engine) -> RunningSimulator:
    """Start a simulator on the running event loop. `engine` makes what computes the tokens.

    Raises:
        OSError: the port is taken, or the host is none of this machine's.
    """
    simulator = RunningSimulator(config, engine)
    await simulator._start()  # noqa: SLF001 - the two are one thing
    return simulator


def run(config: SimulatorConfig, engine: Callable[[SimulatorConfig], Engine] = Engine) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        CannotListenError: the port is taken, or the host is none of this machine's.
    """
    uvloop.run(_serve(config, engine))


async def _serve(config: SimulatorConfig, engine: Callable[[SimulatorConfig], Engine]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    try:
        simulator = await start(config, engine)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that no name can be
        raise CannotListenError(f"cannot listen on {config.host}:{config.port}: {_reason(error)}") from None
    async with simulator:
        _log.info("simulator_listening", url=simulator.url, model=config.model, engine=config.engine)
        await stop.wait()


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "that is no host's name"
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)  # asyncio's own words repeat the address


class _Route(NamedTuple):
    method: str
    handler: _Handler


class _App:
    def __init__(self, config: SimulatorConfig, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        self._fingerprint = fingerprint_of(config)
        self._routes: Mapping[str, _Route] = {
            "/v1/chat/completions": _Route("POST", self._chat),
            "/v1/completions": _Route("POST", self._completion),
            "/v1/embeddings": _Route("POST", self._embeddings),
            "/v1/models": _Route("GET", self._models),
            "/tokenize": _Route("POST", self._tokenize),
            "/health": _Route("GET", self._health),
            "/version": _Route("GET", self._version),
            "/metrics": _Route("GET", self._metrics),
            # No engine has these two.
            "/simulator/gpu": _Route("GET", self._gpu),
            "/simulator/speed": _Route("POST", self._speed),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        route = self._routes.get(request.path)
        response = await self._answer(request, route)
        self._engine.metrics.http(request.path if route else "none", request.method, response.status)
        return response

    async def _answer(self, request: web.BaseRequest, route: _Route | None) -> web.StreamResponse:
        try:
            plan = faults.parse(request.headers.get(faults.HEADER))
        except ValueError as error:
            return _json(msgspec.json.encode({"detail": str(error)}), 400)
        try:
            if plan:
                await before_head(request, plan)
            if route is None:
                return _json(b'{"detail":"Not Found"}', 404)
            if request.method != route.method:
                return _json(b'{"detail":"Method Not Allowed"}', 405, {"allow": route.method})
            return await route.handler(request, plan)
        except ApiError as error:
            return _json(error.body(), error.status)

    async def _models(self, _request: web.BaseRequest, _plan: faults.FaultPlan) -> web.StreamResponse:
        return _json(vllm_bodies.models(self._config, int(time.time())))

    async def _health(self, _request: web.BaseRequest, _plan: faults.FaultPlan) -> web.StreamResponse:
        return web.Response(headers={**_head(), "content-length": "0", "vary": "Origin"})

    async def _version(self, _request: web.BaseRequest, _plan: faults.FaultPlan) -> web.StreamResponse:
        return _json(msgspec.json.encode({"version": self._config.version}))

    async def _metrics(self, _request: web.BaseRequest, _plan: faults.FaultPlan) -> web.StreamResponse:
        text = self._engine.metrics.exposition()
        return _plain(text, 200, "text/plain; version=1.0.0; charset=utf-8")

    async def _gpu(self, _request: web.BaseRequest, _plan: faults.FaultPlan) -> web.StreamResponse:
        return _json(msgspec.json.encode(self._engine.gpu()))

    async def _speed(self, request: web.BaseRequest, _plan: faults.FaultPlan) -> web.StreamResponse:
        speed = read_object(await read_body(request)).get("speed")
        if not isinstance(speed, int | float) or not 0.01 <= speed <= 100:
            return _json(b'{"detail":"speed: expected a number from 0.01 to 100"}', 400)
        self._engine.set_speed(speed)
        return _json(msgspec.json.encode({"speed": speed}))

    async def _tokenize(self, request: web.BaseRequest, _plan: faults.FaultPlan) -> web.StreamResponse:
        body = read_object(await read_body(request))
        text = render_chat(body["messages"], []) if "messages" in body else str(body.get("prompt", ""))
        strings = flag(body, "return_token_strs", default=False)
        return _json(vllm_bodies.tokenized(prompt_of(text), self._config, strings=strings))

    async def _embeddings(self, request: web.BaseRequest, plan: faults.FaultPlan) -> web.StreamResponse:
        texts = embeddings.texts_of(read_object(await read_body(request)), self._config)
        self._engine.metrics.embedded(embeddings.tokens_of(texts))
        return await send_body(request, plan, _json(embeddings.reply(texts, self._config)))

    async def _chat(self, request: web.BaseRequest, plan: faults.FaultPlan) -> web.StreamResponse:
        return await self._generate(request, plan, chat_request(read_object(await read_body(request)), self._config))

    async def _completion(self, request: web.BaseRequest, plan: faults.FaultPlan) -> web.StreamResponse:
        return await self._generate(
            request, plan, completion_request(read_object(await read_body(request)), self._config)
        )

    async def _generate(
        self, request: web.BaseRequest, plan: faults.FaultPlan, generation: Generation
    ) -> web.StreamResponse:
        self._admit(generation)
        if merged := plan.get("merge"):
            generation = msgspec.structs.replace(generation, stream_interval=merged)
        answers = generation.answers(self._config)
        if (period := plan.get("loop")) is not None:
            answers = [looped(answer, period) for answer in answers]
        if "refuse" in plan:
            answers = [refused(answer) for answer in answers]
        prompts = [prompt for prompt in generation.prompts for _ in range(generation.n)]
        sequences = [
            self._engine.sequence(prompt.tokens, len(answer.pieces), prompt.block_hashes)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        identity = self._identity(request, generation)
        try:
            if not generation.stream:
                reply = Reply(generation, answers, sequences, self._engine.metrics)
                self._engine.submit(sequences, reply)
                await reply.done
                body = vllm_bodies.reply(identity, generation, answers, sequences, self._config)
                return await send_body(request, plan, _json(body))
            kind = ChatEvents if generation.chat else CompletionEvents
            response, sink = await open_stream(request, plan, {**_head(), **_STREAM_HEAD}, FAILURE)
            events = kind(identity, generation, answers, self._config)
            stream = StreamReply(generation, answers, sequences, self._engine.metrics, events, sink)
            self._engine.submit(sequences, stream)
            await self._stream(stream, sink)
            await response.write_eof()
            return response
        finally:
            self._engine.abort(sequences)

    async def _stream(self, reply: StreamReply, sink: Sink) -> None:
        """Wait for the end of the stream, with comments for the silences if so configured."""
        interval_s = self._config.sse_keep_alive_interval_s
        loop = asyncio.get_running_loop()
        while interval_s is not None and not reply.done.done():
            silence_s = loop.time() - sink.last_send_s
            if silence_s >= interval_s:
                sink.send([KEEP_ALIVE])
                silence_s = 0.0
            await asyncio.wait({reply.done}, timeout=interval_s - silence_s)
        await sink.finish(reply.done)

    def _admit(self, generation: Generation) -> None:
        limit = self._config.max_num_queued_reqs
        if limit is not None and self._engine.unfinished + len(generation.prompts) * generation.n > limit:
            self._engine.metrics.rejected()
            message = (
                "The engine is currently busy and cannot accept new requests. "
                "Please try again later or on a different instance."
            )
            raise ApiError(503, "Service Unavailable", message)

    def _identity(self, request: web.BaseRequest, generation: Generation) -> Identity:
        prefix = "chatcmpl" if generation.chat else "cmpl"
        name = request.headers.get("X-Request-Id") or generation.request_id or secrets.token_hex(8)
        return Identity(f"{prefix}-{name}", int(time.time()), self._config.model, self._fingerprint)


def _head() -> dict[str, str]:
    return {"date": email.utils.formatdate(usegmt=True), "server": "uvicorn"}


def _json(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return _plain(body, status, "application/json", headers)


def _plain(body: bytes, status: int, content_type: str, headers: Mapping[str, str] | None = None) -> web.Response:
    response = plain(body, status, content_type, {**_head(), **(headers or {})})
    response.headers["vary"] = "Origin"
    return response
