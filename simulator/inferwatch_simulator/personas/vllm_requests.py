"""What vLLM's completion and chat routes accept, read into one form, and their refusals."""

import math
from collections.abc import Callable
from typing import Any

import msgspec

from inferwatch_simulator.answers import Answer, Tool, Wish, plan
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.personas.fields import ApiError, flag, integer, invalid, malformed, mapping, number
from inferwatch_simulator.text import Dice, Prompt, prompt_of, prompt_of_ids

COMPLETION_DEFAULT_MAX_TOKENS = 16  # of the completions route; the chat route has no limit of its own
MAX_LOGPROBS = 20  # vLLM's default --max-logprobs
MAX_SEQUENCES = 16_384  # vLLM's default limit of n
MAX_PROMPTS = 1024  # prompts in one completion request
_CALL_SHARE_AFTER_RESULT = 0.3  # how often a model that just got a tool's result calls another tool


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request, on either route.

    Args:
        prompts: one for chat, one or more for completions.
        wishes: for each prompt, what its answers must obey.
        logprobs: alternatives to show per token; None shows no log-probabilities at all.
        reasoning: the model thinks first, and a reasoning parser tells the thoughts from the answer.
        tools: the answer goes through a tool parser, which buffers and leaves out.
        named_tool: a call of one particular tool was demanded; it ends with `stop`, not `tool_calls`.
    """

    chat: bool
    prompts: tuple[Prompt, ...]
    wishes: tuple[Wish, ...]
    n: int
    seed: int
    stream: bool
    include_usage: bool
    continuous_usage: bool
    stream_interval: int
    logprobs: int | None
    return_token_ids: bool
    request_id: str | None
    echo: bool = False
    prompt_only: bool = False
    reasoning: bool = False
    tools: bool = False
    include_reasoning: bool = True
    named_tool: bool = False

    @property
    def hides_metadata(self) -> bool:
        """Token ids and log-probabilities are withheld where they would give away hidden reasoning."""
        return not self.include_reasoning and (self.reasoning or self.tools)

    def answers(self, config: SimulatorConfig) -> list[Answer]:
        """All answers in the order of their index: `i + prompt_idx * n`."""
        return [
            plan(wish, Dice(config.seed, self.seed, prompt.digest, i))
            for prompt, wish in zip(self.prompts, self.wishes, strict=True)
            for i in range(self.n)
        ]


def completion_request(body: dict[str, Any], config: SimulatorConfig) -> Generation:
    """Check a body of `/v1/completions`.

    Raises:
        ApiError: as vLLM would refuse it.
    """
    _check_options(body)
    if body.get("prompt") in (None, "", []):
        raise invalid("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    common = _common(body, config)
    prompts = tuple(_completion_prompts(body["prompt"], str(body.get("cache_salt") or "")))
    max_tokens = integer(body, "max_tokens") if "max_tokens" in body else COMPLETION_DEFAULT_MAX_TOKENS
    echo = flag(body, "echo", default=False)
    prompt_only = echo and max_tokens == 0
    limit = 1 if prompt_only else max_tokens  # the engine cannot generate nothing; what it generated is not shown
    return Generation(
        chat=False,
        prompts=prompts,
        wishes=tuple(_wish(body, config, prompt, limit) for prompt in prompts),
        logprobs=_checked_logprobs(integer(body, "logprobs")),
        echo=echo,
        prompt_only=prompt_only,
        **common,
    )


def chat_request(body: dict[str, Any], config: SimulatorConfig) -> Generation:
    """Check a body of `/v1/chat/completions`.

    Raises:
        ApiError: as vLLM would refuse it.
    """
    _check_options(body)
    tools, choice = _tools(body)
    if "messages" not in body:
        raise malformed("missing", "body.messages", "Field required", body)
    common = _common(body, config)
    text = render_chat(body["messages"], tools)
    prompt = prompt_of(text, str(body.get("cache_salt") or ""))
    limit = integer(body, "max_completion_tokens")
    reasoning = _wants_reasoning(body)
    after_result = bool(body["messages"]) and body["messages"][-1].get("role") == "tool"
    wish = msgspec.structs.replace(
        _wish(body, config, prompt, integer(body, "max_tokens") if limit is None else limit),
        reasoning=reasoning,
        tools=tuple(tools) if choice != "none" else (),
        must_call=choice in ("required", "named"),
        parallel_calls=flag(body, "parallel_tool_calls", default=True),
        call_share=_CALL_SHARE_AFTER_RESULT if after_result else 0.6,
    )
    return Generation(
        chat=True,
        prompts=(prompt,),
        wishes=(wish,),
        logprobs=_checked_logprobs(integer(body, "top_logprobs") or 0)
        if flag(body, "logprobs", default=False)
        else None,
        echo=flag(body, "echo", default=False),
        reasoning=reasoning,
        tools=bool(wish.tools),
        include_reasoning=flag(body, "include_reasoning", default=True),
        named_tool=choice == "named",
        **common,
    )


def _common(body: dict[str, Any], config: SimulatorConfig) -> dict[str, Any]:
    """What both routes share; the model is checked here, as vLLM does: after the form, before the prompt."""
    options = mapping(body, "stream_options") or {}
    stream = flag(body, "stream", default=False)
    include_usage = flag(options, "include_usage", False, "body.stream_options")
    continuous = flag(options, "continuous_usage_stats", False, "body.stream_options")
    interval = integer(body, "stream_interval")
    if interval is not None and interval < 1:
        raise invalid(f"stream_interval must be at least 1, got {interval}.", "stream_interval", interval)
    n = integer(body, "n")
    seed = integer(body, "seed")
    common = {
        "n": 1 if n is None else n,
        "seed": 0 if seed is None else seed,
        "stream": stream,
        "include_usage": include_usage or config.force_include_usage,
        "continuous_usage": (include_usage and continuous) or config.force_include_usage,
        "stream_interval": max(config.stream_interval, interval or 1),
        "return_token_ids": flag(body, "return_token_ids", default=False),
        "request_id": body["request_id"] if isinstance(body.get("request_id"), str) else None,
    }
    model = body.get("model")
    if model and model != config.model:
        message = f"The model `{model}` does not exist. Valid aliases: {config.model}."
        raise ApiError(404, "NotFoundError", message, "model")
    for check in _PARAMETER_CHECKS:
        check(body)
    return common


def _check_options(body: dict[str, Any]) -> None:
    if body.get("stream_options") and not body.get("stream"):
        raise invalid("Stream options can only be defined when `stream=True`.", "stream_options")
    for name in ("prompt_logprobs", "logprobs", "top_logprobs"):
        value = body.get(name)
        if value is not None and not isinstance(value, int | float):
            raise invalid(f"`{name}` must be an integer.", name, value)
    if (body.get("top_logprobs") or 0) > 0 and not body.get("logprobs"):
        raise invalid("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")


def _check_n(body: dict[str, Any]) -> None:
    n = integer(body, "n")
    if n is None:
        return
    if n < 1:
        raise invalid(f"n must be at least 1, got {n}.")
    if n > MAX_SEQUENCES:
        hint = "To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable."
        raise invalid(f"n must be at most {MAX_SEQUENCES}, got {n}. {hint}")
    temperature = number(body, "temperature")
    if n > 1 and temperature is not None and 0 <= temperature < 1e-5:
        raise invalid(f"n must be 1 when using greedy sampling, got {n}.")


def _check_temperature(body: dict[str, Any]) -> None:
    temperature = number(body, "temperature")
    if temperature is not None and not math.isfinite(temperature):
        raise invalid(f"temperature must be a finite number, got {temperature}.", "temperature", temperature)
    if temperature is not None and temperature < 0:
        raise invalid(f"temperature must be non-negative, got {float(temperature)}.", "temperature", float(temperature))
    if temperature is not None and temperature > 2:
        raise invalid(f"temperature must be in [0, 2], got {float(temperature)}.", "temperature", float(temperature))


def _check_top_p(body: dict[str, Any]) -> None:
    top_p = number(body, "top_p")
    if top_p is not None and not 0 < top_p <= 1:
        raise invalid(f"top_p must be in (0, 1], got {float(top_p)}.", "top_p", float(top_p))


def _check_penalties(body: dict[str, Any]) -> None:
    for name in ("presence_penalty", "frequency_penalty"):
        value = number(body, name)
        if value is not None and not -2 <= value <= 2:
            raise invalid(f"{name} must be in [-2, 2], got {float(value)}.")


_PARAMETER_CHECKS: tuple[Callable[[dict[str, Any]], None], ...] = (
    _check_n,
    _check_penalties,
    _check_temperature,
    _check_top_p,
)


def _checked_logprobs(logprobs: int | None) -> int | None:
    if logprobs is not None and logprobs < 0:
        raise invalid("`logprobs` must be a positive value or -1.", "logprobs", logprobs)
    if logprobs is not None and logprobs > MAX_LOGPROBS:
        message = f"Requested sample logprobs of {logprobs}, which is greater than max allowed: {MAX_LOGPROBS}"
        raise invalid(message, "logprobs", logprobs)
    return logprobs


def _wish(body: dict[str, Any], config: SimulatorConfig, prompt: Prompt, max_tokens: int | None) -> Wish:
    """Limits of one prompt's answers. A limit beyond the context is clamped, a prompt beyond it refused."""
    if prompt.tokens == 0:
        raise invalid("The decoder prompt cannot be empty")
    if prompt.tokens > config.max_model_len:
        # Text is tokenised only as far as it takes to know that it is too long.
        found = prompt.tokens if prompt.came_as_ids else config.max_model_len + 1
        qualifier = "at least " if found == config.max_model_len + 1 else ""
        message = (
            f"This model's maximum context length is {config.max_model_len} tokens. However, your prompt contains "
            f"{qualifier}{found} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt."
        )
        raise invalid(message, "input_tokens", found)
    limit = min(config.default_max_tokens if max_tokens is None else max_tokens, config.max_model_len - prompt.tokens)
    min_tokens = integer(body, "min_tokens") or 0
    if limit < 1:
        raise invalid(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
    if min_tokens < 0:
        raise invalid(f"min_tokens must be greater than or equal to 0, got {min_tokens}.")
    if min_tokens > limit:
        raise invalid(f"min_tokens must be less than or equal to max_tokens={limit}, got {min_tokens}.")
    return Wish(
        max_tokens=limit,
        mean_tokens=config.mean_output_tokens,
        min_tokens=min_tokens,
        ignore_eos=flag(body, "ignore_eos", default=False),
        stop=_stop_strings(body.get("stop")),
    )


def _stop_strings(stop: object) -> tuple[str, ...]:
    strings = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else ()
    if stop is not None and not all(isinstance(string, str) for string in strings):
        raise malformed("string_type", "body.stop", "Input should be a valid string", stop)
    if "" in strings:
        raise invalid("stop cannot contain an empty string.")
    return strings


def _completion_prompts(prompt: Any, salt: str) -> list[Prompt]:
    if isinstance(prompt, str):
        return [prompt_of(prompt, salt)]
    if not isinstance(prompt, list):
        raise malformed("string_type", "body.prompt", "Input should be a valid string", prompt)
    if _all_ids(prompt):
        return [prompt_of_ids(prompt, salt)]
    if len(prompt) > MAX_PROMPTS:
        message = (
            f"prompt list length {len(prompt)} exceeds the maximum allowed count of {MAX_PROMPTS}. To increase "
            "this limit, set the VLLM_MAX_COMPLETION_PROMPTS environment variable."
        )
        raise invalid(message, "prompt")
    if all(isinstance(one, str) for one in prompt):
        return [prompt_of(one, salt) for one in prompt]
    if all(isinstance(one, list) and _all_ids(one) for one in prompt):
        return [prompt_of_ids(one, salt) for one in prompt]
    raise malformed("string_type", "body.prompt", "Input should be a valid string", prompt)


def _all_ids(values: list[Any]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values)


def _wants_reasoning(body: dict[str, Any]) -> bool:
    """Whether the model thinks first: asked for by template argument, by effort, or by saying what to do with it."""
    arguments = mapping(body, "chat_template_kwargs") or {}
    if "enable_thinking" in arguments:
        return bool(arguments["enable_thinking"])
    effort = body.get("reasoning_effort")
    return effort not in (None, "none") or body.get("include_reasoning") is not None


def _tools(body: dict[str, Any]) -> tuple[list[Tool], str]:
    """The tools, and how they may be used: none, auto, required, or `named`, when just the named one is left."""
    given = body.get("tools")
    if given == []:
        hint = "Either provide at least one tool or omit the field entirely."
        raise invalid(f"`tools` must not be an empty array. {hint}", "tools")
    if given is not None and not isinstance(given, list):
        raise malformed("list_type", "body.tools", "Input should be a valid list", given)
    choice = body.get("tool_choice", "auto" if given else "none")
    tools = [_tool(tool, position) for position, tool in enumerate(given or [])]
    if choice in (None, "none"):
        return tools, "none"
    if not tools:
        raise invalid("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(choice, dict):
        function = choice.get("function")
        named = [tool for tool in tools if isinstance(function, dict) and tool.name == function.get("name")]
        if not named:
            message = "The tool specified in `tool_choice` does not match any of the specified `tools`"
            raise invalid(message, "tool_choice")
        return named, "named"
    if choice not in ("auto", "required"):
        kinds = 'Only named tools, "none", "auto" or "required" are supported.'
        raise invalid(f"Invalid value for `tool_choice`: {choice}! {kinds}", "tool_choice")
    return tools, choice


def _tool(tool: Any, position: int) -> Tool:
    where = f"body.tools.{position}.function"
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        raise malformed("missing", where, "Field required", tool)
    if not isinstance(function.get("name"), str):
        raise malformed("missing", f"{where}.name", "Field required", function)
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise malformed("dict_type", f"{where}.parameters", "Input should be a valid dictionary", parameters)
    return Tool(function["name"], parameters)


def render_chat(messages: Any, tools: list[Tool]) -> str:
    """The prompt text of a chat, in the manner of common templates: turns between markers, tools in front.

    Every turn ends with a marker, so that a chat continued has the earlier chat as its prefix.
    """
    if not isinstance(messages, list):
        raise malformed("list_type", "body.messages", "Input should be a valid list", messages)
    parts = []
    if tools:
        listing = "\n".join(msgspec.json.encode(tool).decode() for tool in tools)
        parts.append(f"<|im_start|>system\n# Tools\n\n<tools>\n{listing}\n</tools><|im_end|>\n")
    for position, message in enumerate(messages):
        where = f"body.messages.{position}"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise malformed("missing", f"{where}.role", "Field required", message)
        parts.append(f"<|im_start|>{message['role']}\n{_content(message, where)}<|im_end|>\n")
    return "".join(parts) + "<|im_start|>assistant\n"


def _content(message: dict[str, Any], where: str) -> str:
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(_part(part, where) for part in content)
    elif content is not None and not isinstance(content, str):
        raise malformed("string_type", f"{where}.content", "Input should be a valid string", content)
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise malformed("list_type", f"{where}.tool_calls", "Input should be a valid list", calls)
    listing = "".join(
        f"\n<tool_call>\n{msgspec.json.encode(call.get('function')).decode()}\n</tool_call>" for call in calls
    )
    return f"{content or ''}{listing}"


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict):
        raise malformed("dict_type", f"{where}.content", "Input should be a valid dictionary", part)
    kind = str(part.get("type", "text"))
    if kind not in ("text", "input_text", "refusal"):
        raise invalid(f"At most 0 {kind.removesuffix('_url')}(s) may be provided in one prompt.")
    return str(part.get("text", ""))
