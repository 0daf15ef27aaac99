"""Who votes on drift through a real Inferwatch: a plain client's conversations, which no header and no name tells."""

import json
import urllib.request
from pathlib import Path
from typing import Any

from stack import Stack, chat, client, running, send, wait_until

TALKS = 4
TURNS = 10


def votes(stack: Stack) -> int:
    with urllib.request.urlopen(f"{stack.admin}/drift", timeout=10) as reply:
        streams = json.load(reply)["streams"]
    return int(streams[0]["votes"]) if streams else 0


async def test_a_conversation_of_a_plain_client_is_one_vote(tmp_path: Path) -> None:
    """Ten turns each, streamed and not, with the engine's own answers in between."""
    config = tmp_path / "inferwatch.yml"
    config.write_text("drift: {votes_per_hour: 360000}\nengine_metrics: {interval_s: 0.5}\n", "utf-8")
    with running(tmp_path, "--config", str(config)) as stack:
        async with client() as session:
            for talk in range(TALKS):
                said: list[dict[str, Any]] = [{"role": "system", "content": "You are of help."}]
                for turn in range(TURNS):
                    said.append({"role": "user", "content": f"question {turn} of {talk}"})
                    body = chat(stream=turn % 2 == 0, max_tokens=3) | {"messages": said}
                    code, answer = await send(session, stack.url, body)
                    assert code == 200
                    text = "as said" if turn % 2 == 0 else json.loads(answer)["choices"][0]["message"]["content"]
                    said.append({"role": "assistant", "content": text})
        wait_until(lambda: stack.total("inferwatch_requests_total") == TALKS * TURNS, "all booked")
        wait_until(lambda: votes(stack) >= TALKS, "the votes", detail=lambda: str(votes(stack)))
        assert votes(stack) == TALKS
