"""`docs/engines.md`: what is exact, what is estimated and what needs a flag, engine by engine, from the profiles."""

from collections.abc import Iterator
from typing import Final

from inferwatch.engines import CHAT, COMPLETIONS, INVOCATIONS, PROFILES, Asked, Profile

_ASKED: Final = {
    Asked.NOTHING: "nothing",
    Asked.USAGE: "`stream_options.include_usage`",
    Asked.CONTINUOUS: "`stream_options.include_usage` and `continuous_usage_stats`",
}
_ASKED_ON: Final = {CHAT: "chat", COMPLETIONS: "completions", INVOCATIONS: "`/invocations`"}


def engines_page() -> str:
    """Return `docs/engines.md`."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from (
        "# Engines",
        "",
        "Generated from `proxy/inferwatch/engines.py`; do not edit.",
        "",
        "Replies are read by route and shape, whatever the engine; a profile says what may be asked of it besides.",
        "`upstream.engine: auto` finds out which one it is, once when it comes up and again after it was gone.",
        "Where a count comes from is in every record and in `inferwatch_tokens_by_source_total`",
        "([topics/tokens.md](topics/tokens.md)).",
        "",
        "| engine | `upstream.engine` | exact | estimated | needs a flag |",
        "|---|---|---|---|---|",
    )
    for profile in PROFILES.values():
        yield f"| {profile.title} | `{profile.name}` | {profile.exact} | {profile.estimated} | {profile.flags} |"
    for profile in PROFILES.values():
        yield from _section(profile)


def _section(profile: Profile) -> Iterator[str]:
    yield from ("", f"## {profile.title}", "")
    yield f"- Known by: {profile.known_by}. Facts from: {profile.seen}."
    yield f"- Read: {profile.apis}."
    *routes, last = map(_ASKED_ON.__getitem__, profile.asked_on)
    yield f"- Asked for on streams of {', '.join(routes) + ' and ' if routes else ''}{last}: {_ASKED[profile.asked]}."
    if profile.asked_details:
        yield "- Asked for on its own streams: `parameters.details`."
    yield f"- Cached tokens: {profile.cached}. Reasoning: {profile.reasoning}."
    yield f"- Errors: {profile.errors}."
    yield f"- End of a stream: {profile.end}."
    metrics = "read, if it has them on" if profile.metrics else "none that are read"
    yield f"- Its own metrics: {metrics}."
