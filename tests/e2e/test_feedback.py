"""A simulated engine, the real proxy: users vote on answers, and the report says what they said."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
from stack import MODEL, Stack, chat, client, running, send

TOKEN = "0123456789abcdef-e2e"


async def vote(session: aiohttp.ClientSession, stack: Stack, token: str = TOKEN, **fields: Any) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"}
    async with session.post(f"{stack.admin}/feedback", json=fields, headers=headers) as reply:
        return reply.status, json.loads(await reply.text())["result"]


async def test_votes_are_joined_to_their_answers(tmp_path: Path) -> None:
    """By our id and by the engine's, while the answer streams and after it, over a kill of the collector, and with
    another token after a reload."""
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    config = tmp_path / "config.yml"
    config.write_text(f"feedback: {{token_file: {token}, response_header: true}}\n")
    slow = ("--decode-step-ms-base", "50")
    with running(tmp_path, "--config", str(config), simulate_flags=slow) as stack:
        async with client() as session:
            async with session.post(f"{stack.url}/v1/chat/completions", json=chat("hi", max_tokens=40)) as reply:
                early = reply.headers["x-inferwatch-request-id"]
                await reply.content.readany()
                await asyncio.sleep(0.3)  # the tap has told of it
                assert await vote(session, stack, request_id=early, thumb="down", comment="never kept") == (
                    200,
                    "taken",
                )
                await reply.read()
            _, body = await send(session, stack.url, chat("hi", stream=False, max_tokens=3))
            assert await vote(session, stack, request_id=json.loads(body)["id"], score=1, thumb="up") == (200, "taken")
            assert await vote(session, stack, request_id="nobody", thumb="up") == (404, "unknown")
            await asyncio.to_thread(stack.kill, "inferwatch_collectors")
            await asyncio.to_thread(stack.settled, 2)
            assert await vote(session, stack, request_id=early, thumb="up") == (200, "replaced")
            token.write_text("another-token-of-ours\n")
            async with session.post(f"{stack.admin}/-/reload") as reply:
                assert reply.status == 200
            for given in ("", TOKEN):
                headers = {"Authorization": f"Bearer {given}"}
                async with session.post(f"{stack.admin}/feedback", json={}, headers=headers) as reply:
                    assert reply.status == 401
            assert await vote(session, stack, "another-token-of-ours", request_id=early, thumb="up") == (
                200,
                "repeated",
            )
        scrape = await asyncio.to_thread(stack.scrape)
        votes = scrape.samples["inferwatch_feedback_votes_total"]
        assert {dict(labels)["thumb"]: value for labels, value in votes.items()} == {"down": 1, "up": 1, "none": 0}
        flags = ("--state-dir", str(tmp_path / "state"), "--format", "json")
        command = [sys.executable, "-m", "inferwatch", "report", "--by", "model", *flags]
        told = json.loads(await asyncio.to_thread(subprocess.check_output, command))
        assert told["feedback"] == [
            {"model": MODEL, "variant": MODEL, "votes": 2, "up": 2, "down": 0, "score": 1.0}
        ]  # fmt: skip
    assert b"never kept" not in b"".join(
        file.read_bytes() for file in (tmp_path / "state").rglob("*") if file.is_file()
    )
