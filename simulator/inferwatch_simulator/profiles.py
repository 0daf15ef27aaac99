"""Who sends what: the traffic profiles of the load generator, as data."""

import msgspec


class Range(msgspec.Struct, frozen=True):
    """A whole number drawn evenly from [low, high]."""

    low: int
    high: int


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One way of using a model. Shares are probabilities.

    Args:
        kind: chat, retrieval, agent, completion, or invalid.
        feature: what the application calls it; sent as `x-inferwatch-feature`.
        share: weight among the tenant's workloads.
        prompt_tokens: length of what each turn adds to the prompt.
        max_tokens: limit of each answer.
        turns: requests per conversation, each with the one before as its prefix.
        pause_ms: between the turns.
        streamed: share of requests that stream.
        asks_usage: share of streams that ask for usage themselves.
        hangs_up: share of requests whose client leaves midway.
        retries: how often a request that is refused is sent again, unchanged.
        retry_ms: between the tries.
    """

    kind: str
    feature: str
    share: float = 1.0
    prompt_tokens: Range = Range(20, 200)
    max_tokens: Range = Range(100, 600)
    turns: Range = Range(1, 1)
    pause_ms: Range = Range(0, 0)
    streamed: float = 1.0
    asks_usage: float = 0.3
    hangs_up: float = 0.0
    retries: int = 0
    retry_ms: int = 0


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A customer with a key. `users` is how many people share it."""

    name: str
    api_key: str
    share: float
    users: int
    workloads: tuple[Workload, ...]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic of several tenants. Conversations beyond `max_concurrent` are skipped and counted."""

    name: str
    tenants: tuple[Tenant, ...]
    max_concurrent: int = 256


_CHAT = Workload(
    kind="chat",
    feature="assistant",
    share=6,
    prompt_tokens=Range(10, 120),
    max_tokens=Range(150, 800),
    turns=Range(1, 5),
    pause_ms=Range(2_000, 12_000),
    hangs_up=0.06,
)
_RETRIEVAL = Workload(
    kind="retrieval",
    feature="document-search",
    share=3,
    prompt_tokens=Range(1_500, 6_000),
    max_tokens=Range(40, 160),
    streamed=0.5,
)
_AGENT = Workload(
    kind="agent",
    feature="coding-agent",
    share=2,
    prompt_tokens=Range(200, 900),
    max_tokens=Range(200, 700),
    turns=Range(3, 9),
    pause_ms=Range(200, 1_500),
    asks_usage=0.9,
)
_COMPLETION = Workload(
    kind="completion",
    feature="autocomplete",
    share=2,
    prompt_tokens=Range(60, 300),
    max_tokens=Range(16, 64),
    streamed=0.4,
    hangs_up=0.15,
)
_INVALID = Workload(kind="invalid", feature="broken-client", share=0.3)

DEMO = Profile(
    name="demo",
    tenants=(
        Tenant(
            name="acme",
            api_key="sk-demo-acme-51f0c2",
            share=5,
            users=40,
            workloads=(_CHAT, _RETRIEVAL, _INVALID),
        ),
        Tenant(name="globex", api_key="sk-demo-globex-9d27ab", share=3, users=12, workloads=(_AGENT, _COMPLETION)),
        Tenant(name="initech", api_key="sk-demo-initech-03be77", share=2, users=5, workloads=(_CHAT, _INVALID)),
        Tenant(
            name="hooli",
            api_key="sk-demo-hooli-c4418e",
            share=0.5,
            users=1,
            # The misconfigured client: the whole knowledge base in every prompt, again and again.
            workloads=(
                Workload(
                    kind="retrieval",
                    feature="nightly-export",
                    prompt_tokens=Range(18_000, 28_000),
                    max_tokens=Range(400, 900),
                    streamed=0.0,
                ),
            ),
        ),
    ),
)

STEADY = Profile(
    name="steady",
    tenants=(
        Tenant(
            name="acme",
            api_key="sk-demo-acme-51f0c2",
            share=1,
            users=20,
            workloads=(Workload(kind="chat", feature="assistant", max_tokens=Range(100, 300)),),
        ),
    ),
)

# Everything at once, short and without pauses: for tests.
BRISK = Profile(
    name="brisk",
    tenants=(
        Tenant(
            name="acme",
            api_key="sk-test-acme",
            share=2,
            users=4,
            workloads=(
                Workload(kind="chat", feature="assistant", max_tokens=Range(5, 30), turns=Range(1, 3), streamed=0.7),
                Workload(kind="retrieval", feature="search", prompt_tokens=Range(300, 900), max_tokens=Range(5, 15)),
                Workload(kind="chat", feature="assistant", max_tokens=Range(40, 80), hangs_up=1.0, share=0.5),
            ),
        ),
        Tenant(
            name="globex",
            api_key="sk-test-globex",
            share=1,
            users=2,
            workloads=(
                Workload(kind="agent", feature="agent", turns=Range(2, 4), streamed=0.5, asks_usage=0.5),
                Workload(kind="completion", feature="autocomplete", max_tokens=Range(4, 20), streamed=0.5),
                Workload(kind="invalid", feature="broken"),
            ),
        ),
    ),
    max_concurrent=64,
)

PROFILES = {profile.name: profile for profile in (DEMO, STEADY, BRISK)}
