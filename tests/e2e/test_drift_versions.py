"""Drift through a real Inferwatch whose engine is upgraded and rolled back: nothing of one version is the other's."""

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

from stack import Stack, chat, client, running, send, status, wait_until

VOTES = 12


def stream_of(stack: Stack) -> dict[str, Any]:
    with urllib.request.urlopen(f"{stack.admin}/drift", timeout=10) as reply:
        streams = json.load(reply)["streams"]
    return dict(streams[0]) if streams else {"votes": 0}


def upgrade(stack: Stack, version: str) -> None:
    """Put another version in the engine's place, as quickly as a process starts."""
    assert stack.simulator is not None
    stack.simulator.kill()
    stack.simulator.wait()
    stack.simulator = stack._run("simulate", "--port", str(stack.engine_port), "--version", version)
    wait_until(lambda: status(f"{stack.engine}/health") == 200, "the engine")


async def vote(stack: Stack, least: int) -> None:
    """Send requests until the stream has so many votes."""
    async with client() as session:
        for _ in range(200):
            await send(session, stack.url, chat(str(time.monotonic_ns()), max_tokens=2))  # no two alike: they vote
            if stream_of(stack)["votes"] >= least:
                return
    wait_until(lambda: stream_of(stack)["votes"] >= least, "votes", detail=lambda: str(stream_of(stack)))


async def test_an_upgrade_is_learnt_anew_and_a_roll_back_goes_on(tmp_path: Path) -> None:
    """What was learnt of each version is its own; and whoever reads the report knows why it begins anew."""
    config = tmp_path / "inferwatch.yml"
    config.write_text("drift: {votes_per_hour: 36000}\nengine_metrics: {interval_s: 0.5}\n", "utf-8")
    with running(tmp_path, "--config", str(config)) as stack:
        await vote(stack, VOTES)
        assert stream_of(stack)["engine"].startswith("version 0.32.0")
        upgrade(stack, "0.33.0")
        async with client() as session:
            await send(session, stack.url, chat("and now?", max_tokens=2))
        wait_until(lambda: "0.33.0" in stream_of(stack).get("changed", ""), "the change")
        anew = stream_of(stack)
        assert anew["votes"] < VOTES
        assert "engine changed from version 0.32.0" in anew["changed"]
        assert "learning anew" in anew["changed"]
        await vote(stack, 3)
        upgrade(stack, "0.32.0")
        wait_until(lambda: "to version 0.32.0" in stream_of(stack).get("changed", ""), "the change back")
        back = stream_of(stack)
        assert back["votes"] >= VOTES
        assert back["engine"].startswith("version 0.32.0")
        assert back["kept"][0].startswith("version 0.33.0")
        assert stack.total("inferwatch_drift_engine_changes_total") == 2
        assert "engine changed from version 0.32.0" in stack.log
