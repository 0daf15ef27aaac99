"""`docs/quickstart/engines.md`: from an engine to numbers in four commands, engine by engine, from the profiles."""

from collections.abc import Iterator
from typing import Final

from inferwatch.engines import PROFILES, UNKNOWN, Profile

FIRST_CHAT: Final = (
    "/v1/chat/completions",
    '{"model": "MODEL", "max_tokens": 20, "messages": [{"role": "user", "content": "Say hello."}]}',
)


def engines_quickstart() -> str:
    """Return `docs/quickstart/engines.md`."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from (
        "# Quick start, by engine",
        "",
        "Generated from `proxy/inferwatch/engines.py`; do not edit.",
        "",
        "In each: start the engine on loopback, so that nobody goes around Inferwatch; put Inferwatch before it; let a",
        "client ask port 8080; look at `http://127.0.0.1:9480/`. `MODEL` is yours. What is exact for each engine,",
        "and what is an estimate: [../engines.md](../engines.md). If something is not as it should be:",
        "[../troubleshooting.md](../troubleshooting.md).",
        "Without an engine at hand, `inferwatch simulate --engine NAME` stands in for each, on port 8000; `--port`",
        "is for another, as some commands below have it.",
    )
    for profile in PROFILES.values():
        if profile is not UNKNOWN:
            yield from _section(profile)


def _section(profile: Profile) -> Iterator[str]:
    yield from ("", f"## {profile.title}", "")
    if profile.start:
        yield from ("```sh", profile.start, "```", "")
    if profile.flags != UNKNOWN.flags:
        yield from (f"Flags that tell more: {profile.flags}.", "")
    serve = f"inferwatch serve --upstream {profile.url}"
    if profile.is_told:
        serve += f" --engine {profile.name}"
    path, body = profile.ask if profile.ask[0] else FIRST_CHAT
    yield from ("```sh", serve, "```", "", "```sh")
    headers = " ".join(f"-H '{header}'" for header in ("content-type: application/json", *profile.ask_headers))
    yield f"curl -sS http://127.0.0.1:8080{path} {headers} \\"
    yield f"  -d '{body}'"
    told = f" --engine {profile.name} --no-request" if profile.is_told else ""
    yield f"inferwatch doctor --upstream {profile.url}{told}"
    yield "```"
    if profile.metrics_url:
        yield from ("", f"Its metrics are on a port of their own: `engine_metrics.url: {profile.metrics_url}`.")
