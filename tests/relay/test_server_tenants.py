"""server: where only tenants are let in, a stranger gets a 401 and the engine never hears of it."""

import pytest
from harness import Start, get, ok, post

TENANTS_ONLY = {"known": [{"name": "acme", "key_env": "ACME_KEYS"}], "unknown_keys": "reject"}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEYS", "sk-one sk-two")


async def test_strangers_get_401_and_tenants_get_through(start: Start) -> None:
    """The refusal has the engine's shape and keeps the connection; each key of a tenant has the tenant's name."""
    rig = await start(tenants=TENANTS_ONLY)
    rig.engine.answer(ok())
    client = await rig.connect()

    refused = await client.ask(post("{}", "/v1/completions", "Authorization: Bearer sk-nobody"))
    assert (refused.status, refused.start) == (401, b"HTTP/1.1 401 Unauthorized")
    assert refused.json["error"]["type"] == "AuthenticationError"
    assert b"sk-nobody" not in refused.body
    assert rig.engine.requests == []
    close = await rig.tap.close()
    assert (close.outcome, close.error, close.status) == ("rejected", "unknown_key", 401)

    for key in ("sk-one", "sk-two"):
        assert (await client.ask(post("{}", "/v1/completions", f"Authorization: Bearer {key}"))).status == 200
    assert (await client.ask(get("/health"))).status == 200
    assert [opened.tenant for opened in rig.tap.opens][1:] == ["acme", "acme", "anonymous"]


async def test_a_strangers_large_body_is_not_waited_for(start: Start) -> None:
    """The 401 comes at the head; nothing of the body is kept."""
    rig = await start(tenants=TENANTS_ONLY)
    client = await rig.connect()
    client.send(b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n{")

    assert (await client.reply()).status == 401
    assert await client.rest() == b""


async def test_messages_clients_get_their_own_shape(start: Start) -> None:
    """On Anthropic's route the error is Anthropic's."""
    rig = await start(tenants=TENANTS_ONLY)
    reply = await (await rig.connect()).ask(post("{}", "/v1/messages", "x-api-key: sk-nobody"))

    assert reply.json["error"]["type"] == "authentication_error"
