"""The canary: whether the engine gives what its probe asks for."""

import asyncio
from typing import Final

from inferwatch.doctor import engine
from inferwatch.doctor.finding import Finding, Level
from inferwatch.doctor.patient import Patient, Reply
from inferwatch.secret_file import variable
from inferwatch.settings.canary import Canary

# Of what the engine says to a request that it refuses.
MAX_SAID_CHARS: Final = 200

_REMEDIES: Final = {
    400: "ask for less: lower `canary.top_logprobs` (or raise vLLM's `--max-logprobs`), set `canary.priority: 0`; or "
    "take the other `canary.api`",
    401: "name a variable with a key of the engine in `canary.key_env`, and set it where doctor runs, too",
    404: "name a model that the engine serves in `canary.models`, or take the other `canary.api`",
    429: "try again when the engine has less to do",
}
_REMEDIES_OF_ALIKE: Final = {403: 401, 405: 404, 422: 400, 501: 404}
_ELSE: Final = "look at the engine's log; the canary is off until it answers, and traffic does not wait for it"
_NONE_GIVEN: Final = (
    "start the engine so that it gives log-probabilities, or take the other `canary.api`; if it never will, set "
    "`canary.enabled: false`"
)
_UNLISTED: Final = "name the models to ask in `canary.models`; if the engine wants a key: `canary.key_env`"


async def logprobs(patient: Patient) -> list[Finding]:
    """Ask each model what the canary will ask, once."""
    wanted = patient.config.canary
    if not wanted.enabled:
        return []
    if not patient.options.request:
        return [Finding(check="canary", level=Level.NOTE, what="the engine was not asked for log-probabilities")]
    models = wanted.models
    if not models:
        listed = await patient.engine("/v1/models", key=_key(patient))
        if not listed.status:
            return []  # said by `engine.reachable`
        models = tuple(engine.model_names(listed)[:1])
        if not models:
            return [_fault(f"/v1/models (status {listed.status}) lists no model to ask", _UNLISTED)]
    name = await engine.name_of(patient)
    return await asyncio.gather(*(_ask(patient, model, name or "") for model in models))


def _key(patient: Patient) -> str:
    """Return the key that the probe has, which need not be that of `--api-key-env`."""
    return variable(patient.config.canary.key_env)


async def _ask(patient: Patient, model: str, engine_name: str) -> Finding:
    from inferwatch_collectors.canary.asking import PATHS, body_of  # noqa: PLC0415 - as in `services`
    from inferwatch_collectors.canary.prompts import PROMPTS  # noqa: PLC0415

    wanted = patient.config.canary
    path = PATHS[wanted.api]
    prompt = (wanted.prompts or PROMPTS)[0]
    reply = await patient.engine(path, body_of(wanted, model, prompt, engine_name), key=_key(patient))
    if not reply.status:
        return _fault(f"{path} with `{model}`: {reply.error}", _ELSE)
    if reply.status != 200:
        remedy = _REMEDIES.get(_REMEDIES_OF_ALIKE.get(reply.status, reply.status), _ELSE)
        return _fault(f"{path} with `{model}` answers {reply.status}{_said(reply)}", remedy)
    given, reason = _given(reply, wanted)
    if reason:
        what = f"{path} with `{model}` answers 200, and not with {wanted.top_logprobs} log-probabilities"
        return _fault(f"{what} ({reason})", _NONE_GIVEN)
    what = f"{path} with `{model}` gives {given} log-probabilities"
    return Finding(check="canary", level=Level.OK, what=what)


def _given(reply: Reply, wanted: Canary) -> tuple[int, str]:
    """Return how many log-probabilities there are in a reply, and why none, as the canary counts it."""
    from inferwatch_collectors.canary.asking import MAX_REPLY_BYTES  # noqa: PLC0415
    from inferwatch_collectors.canary.logprobs import UnreadableError, read  # noqa: PLC0415

    if len(reply.body) > MAX_REPLY_BYTES:
        return 0, "too_large"
    try:
        return len(read(reply.body, wanted.api, wanted.top_logprobs)), ""
    except UnreadableError as error:
        return 0, error.reason


def _said(reply: Reply) -> str:
    """Return what an engine says to a request that it refuses, if it does; not of a key, which may be quoted there."""
    loaded = reply.json if reply.status not in (401, 403) else None
    error = loaded.get("error", loaded) if isinstance(loaded, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    if not isinstance(message, str):
        return ""
    shown = "".join(char if char.isprintable() else " " for char in message[:MAX_SAID_CHARS])
    return f": {shown}"


def _fault(what: str, remedy: str) -> Finding:
    return Finding(check="canary", level=Level.FAULT, what=what, remedy=remedy)
