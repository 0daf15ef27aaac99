"""The simulated engine as a server, for every persona but vLLM's: a page, a refusal, a reply or a stream.

Faults on demand (`x-sim-fault`) are those of `faults`, as with vLLM.
"""

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from inferwatch_simulator import faults
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.engine import Engine
from inferwatch_simulator.http_answers import before_head, open_stream, plain, read_body, send_body
from inferwatch_simulator.personas.base import Format, Page, Persona, Refusal, Turn, TurnEvents
from inferwatch_simulator.personas.fields import ApiError, read_object
from inferwatch_simulator.personas.vllm_shapes import Identity
from inferwatch_simulator.replies import Reply, StreamReply

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class PersonaApp:
    """Answers requests as one engine would."""

    def __init__(self, config: SimulatorConfig, engine: Engine, persona: Persona) -> None:
        self._config = config
        self._engine = engine
        self._persona = persona
        self._head = {"server": persona.server} if persona.server else {}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            plan = faults.parse(request.headers.get(faults.HEADER))
        except ValueError as error:
            return plain(str(error).encode(), 400, "text/plain", self._head)
        form = self._persona.format_of(request.path) if request.method == "POST" else None
        try:
            if plan:
                await before_head(request, plan)
            if form is None:
                return self._page(request)
            data = await read_body(request)
            self._persona.check(request.headers)
            body = read_object(data)
        except ApiError as error:
            return await self._refuse(request, plan, (form or Format()).refusal(error, streamed=False))
        try:
            return await self._generate(request, plan, form, body)
        except ApiError as error:
            streamed = form.streams(body, request.path)
            return await self._refuse(request, plan, form.refusal(error, streamed=streamed), form)

    def _page(self, request: web.BaseRequest) -> web.StreamResponse:
        page: Page | None = None
        if request.method in ("GET", "HEAD"):
            page = self._persona.page(request.path, self._config, self._engine.metrics.totals())
        page = page or self._persona.not_found()
        return plain(page.body, page.status, page.content_type, {**self._head, **page.headers})

    async def _refuse(
        self, request: web.BaseRequest, plan: faults.FaultPlan, refusal: Refusal, form: Format | None = None
    ) -> web.StreamResponse:
        if refusal.event is None or form is None:
            return plain(refusal.body, refusal.status, "application/json", {**self._head, **refusal.headers})
        response, sink = await open_stream(request, plan, self._stream_head(form), form.failure())
        sink.send([refusal.event])
        await response.write_eof()
        return response

    async def _generate(
        self, request: web.BaseRequest, plan: faults.FaultPlan, form: Format, body: dict[str, Any]
    ) -> web.StreamResponse:
        generation = form.read(body, self._config)
        streams = form.streams(body, request.path)
        interval = plan.get("merge") or generation.stream_interval
        generation = msgspec.structs.replace(generation, stream=streams, stream_interval=interval)
        self._admit(len(generation.prompts) * generation.n)
        answers = generation.answers(self._config)
        prompts = [prompt for prompt in generation.prompts for _ in range(generation.n)]
        sequences = [
            self._engine.sequence(prompt.tokens, len(answer.pieces), prompt.block_hashes)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        identity = Identity(secrets.token_hex(8), int(time.time()), self._config.model, "")
        turn = Turn(identity, generation, answers, self._config, body, request.path)
        try:
            if not streams:
                reply = Reply(generation, answers, sequences, self._engine.metrics)
                self._engine.submit(sequences, reply)
                await reply.done
                headers, content = form.reply(turn, sequences)
                whole = plain(msgspec.json.encode(content), 200, "application/json", {**self._head, **headers})
                return await send_body(request, plan, whole)
            response, sink = await open_stream(request, plan, self._stream_head(form), form.failure())
            events = TurnEvents(form, turn)
            stream = StreamReply(generation, answers, sequences, self._engine.metrics, events, sink)
            if form.opens_early:
                stream.open()
            self._engine.submit(sequences, stream)
            await sink.finish(stream.done)
            await response.write_eof()
            return response
        finally:
            self._engine.abort(sequences)

    def _stream_head(self, form: Format) -> dict[str, str]:
        return {**self._head, "content-type": form.content_type, **form.stream_headers}

    def _admit(self, sequences: int) -> None:
        limit = self._config.max_num_queued_reqs
        if limit is not None and self._engine.unfinished + sequences > limit:
            self._engine.metrics.rejected()
            raise ApiError(503, "overloaded", "The engine is overloaded")
