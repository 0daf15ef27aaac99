"""No text, and nothing from which text could be read without the key, is in anything that drift, quality, the canary and
feedback keep or show: a dictionary of all that was said is tried on all of it.

Kept and shown is: the state folder with the ledger, in it references, drift's and the canary's state, and votes; the
spool; `/metrics`; `/drift` and `report --drift` in all formats; the live page; the report; what was logged.
"""

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import urllib.request
from array import array
from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec
import pytest
from dictionary import GUESSED_KEYS, alike, best_without_a_key, excess, hashed_in, said_in, sketched, with_key
from stack import MODEL, Stack, chat, client, status, wait_until

from inferwatch_collectors.canary.memory import NAME as CANARY_STATE
from inferwatch_collectors.drift.following import FollowedState
from inferwatch_collectors.drift.memory import NAME as DRIFT_STATE
from inferwatch_collectors.drift.trigrams import Codebook
from inferwatch_collectors.embeddings.sketch import BUCKETS
from inferwatch_simulator.corpus import CODE, LISTS, PROSE

SECRET: Final = b"this installation's own secret, of 32 bytes or more"
TOKEN: Final = "0123456789abcdef-e2e"

# Words that stand nowhere else in what is exported.
SENTENCES: Final = (
    "Xaver Yilmazoglu schuldet der Brauerei Quellbrunn noch zwölfhundert Gulden.",
    "Kontonummer vierundachtzig, Losungswort Blaumeisenschwarm, gültig bis Pfingsten.",
    "Wer den Zwiebelkuchen verdorben hat, weiß allein Frau Jankowiakova.",
    "Die Diagnose lautet Pfeiffersches Drüsenfieber, sagt Doktor Oehlenschläger.",
    "Der Geheimgang beginnt hinter dem Kachelofen im Gasthof zum Uhu.",
    "Unser Angebot an Wuppermetall liegt bei neunundfünfzig Pfennigen je Pfund.",
    "Bitte kündige Herrn Vytautasson, bevor der Betriebsrat davon erfährt.",
    "Im Hauptbuch fehlen die Quittungen von Dschibuti und Kyritz.",
)
COMMENT: Final = "Sprachlos: Schwippschwager Bartholomäus bekam Kreuzworträtsel statt Antworten."
PROBES: Final = ("Der Schatz der Gebrüder Xylander liegt in", "Das Losungswort der Wildschweinwächter heißt")
USER, SESSION = "ottokar.quastenflosser@example.org", "sitzung-mit-jolanthe-kaczmarek"

REQUESTS: Final = 1_600
VOTES: Final = 1_256  # 256 for the edges, 1,000 counted
REPLIES: Final = 520
EMBEDDED: Final = 600  # more than their mean and covariance are learnt from

CONFIG: Final = f"""
identity: {{key_file: KEY}}
drift:
  text: true
  votes_per_hour: 360000
  reference_requests_min: 1000
  embeddings: {{url: own, model: MODEL, per_minute: 6000}}
quality: {{listen: true}}
canary: {{enabled: true, interval_s: 0.02, reference_probes_min: 500, prompts: {json.dumps(PROBES, ensure_ascii=False)}}}
feedback: {{token_file: TOKEN, response_header: true}}
engine_metrics: {{interval_s: 0.5}}
log: {{level: debug}}
"""


def prompts() -> Iterator[str]:
    """Yield what is asked: two or three of the sentences."""
    rng = random.Random(8)
    while True:
        yield " ".join(rng.sample(SENTENCES, rng.randint(2, 3)))


ASKED: Final = [prompt for prompt, _ in zip(prompts(), range(REQUESTS), strict=False)]


class Kept(NamedTuple):
    """What an attacker has, and what an honest one would know."""

    exports: dict[str, bytes]
    tokens: list[str]  # that the engine gives for the canary's prompts
    words: Mapping[str, tuple[int, bytes, bytes]]  # of the drift reference
    mean: Sequence[float]  # of the sketches of prompts' embeddings
    embedded: Sequence[Sequence[float]]  # what the same model makes of the same prompts


async def ask_all(stack: Stack, asked: Sequence[str], again: str = "") -> str:
    """Send the prompts; a few come from a user with a session. Return the id of an answer.

    What is sent `again` is of sessions under this name: by its text alone it would be of one that has voted.
    """
    waiting, given = list(asked), ""

    async def one(session: aiohttp.ClientSession) -> None:
        nonlocal given
        while waiting:
            prompt = waiting.pop()
            headers = {"x-inferwatch-session": f"{again} {len(waiting)}"} if again else {}
            if len(waiting) % 100 == 7:
                headers = {"x-inferwatch-user": USER, "x-inferwatch-session": SESSION}
            body = chat(prompt, stream=len(waiting) % 20 == 0, max_tokens=6)
            with contextlib.suppress(aiohttp.ClientError):
                async with session.post(f"{stack.url}/v1/chat/completions", json=body, headers=headers) as reply:
                    given = reply.headers.get("x-inferwatch-request-id", given)
                    await reply.read()

    async with client() as session:
        await asyncio.gather(*(one(session) for _ in range(8)))
    return given


async def vote(stack: Stack, request_id: str) -> None:
    """Say something of an answer."""
    body = {"request_id": request_id, "thumb": "down", "comment": COMMENT}
    async with (
        client() as session,
        session.post(f"{stack.admin}/feedback", json=body, headers={"Authorization": f"Bearer {TOKEN}"}) as reply,
    ):
        assert reply.status == 200, await reply.text()


def pin(stack: Stack, tenant: str) -> None:
    """Have a reference pinned."""
    url = f"{stack.admin}/drift/pin?model={MODEL}&tenant={tenant}"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10) as reply:
        assert reply.read().startswith(b"pinned\n")


def tokens_of(stack: Stack) -> list[str]:
    """Return what the engine itself says of the canary's prompts."""
    found: set[str] = set()
    for prompt in PROBES:
        body = {"model": MODEL, "prompt": prompt, "max_tokens": 1, "logprobs": 5, "temperature": 0}
        request = urllib.request.Request(
            f"{stack.engine}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            found.update(json.load(reply)["choices"][0]["logprobs"]["top_logprobs"][0])
    return sorted(found)


def embedded(stack: Stack, texts: Sequence[str]) -> list[list[float]]:
    """Return what the engine itself makes of some texts."""
    body = json.dumps({"model": MODEL, "input": list(texts)}).encode()
    request = urllib.request.Request(f"{stack.engine}/v1/embeddings", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return [each["embedding"] for each in json.load(reply)["data"]]


def shown(stack: Stack, config: Path) -> dict[str, bytes]:
    """Return what may be looked at while it runs."""
    found = {}
    for page in (
        *("/metrics", "/drift", "/drift?format=json", "/drift?format=text", "/usage"),
        *("/live/frame", "/live/history", "/live/streams"),
    ):
        with urllib.request.urlopen(stack.admin + page, timeout=10) as reply:
            found[page] = reply.read()
    with urllib.request.urlopen(f"{stack.admin}/live/events", timeout=10) as reply:
        found["/live/events"] = b"".join(reply.readline() for _ in range(6))
    address = stack.admin.removeprefix("http://")
    for name, *flags in (
        ("table", "--drift"),
        ("json", "--drift"),
        ("table",),
        ("json",),
        ("csv", "--export", "usage"),
    ):
        state = () if "--drift" in flags else ("--state-dir", str(stack.folder / "state"))
        admin = ("--admin", address) if "--drift" in flags else ()
        command = [sys.executable, "-m", "inferwatch", "report", "--config", str(config), *flags, "--format", name]
        found[f"report {flags} {name}"] = subprocess.check_output([*command, *state, *admin])
    return found


async def spooled(stack: Stack) -> bytes:
    """Return what is written while there is no collector."""
    found = bytearray()
    load = asyncio.create_task(ask_all(stack, ASKED[:300]))
    while not load.done():
        for pid in stack.pids("inferwatch_collectors"):
            os.kill(pid, 9)
        for file in (stack.folder / "state").rglob("*spool*/*"):
            with contextlib.suppress(FileNotFoundError):
                found += file.read_bytes()
        await asyncio.sleep(0.05)
    await load
    await asyncio.to_thread(wait_until, lambda: status(f"{stack.admin}/readyz") == 200, "Inferwatch")
    return bytes(found)


def rows(ledger: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each value of each table: in the file itself a long one lies in pieces."""
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    if value is not None:
                        yield table, value if isinstance(value, bytes) else str(value).encode()


def memos(ledger: Path, name: str) -> list[bytes]:
    """Return what was written down under a name."""
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        query = "SELECT value FROM metric_state WHERE family LIKE ?"
        return [msgspec.msgpack.decode(value)[1] for (value,) in connection.execute(query, (f"%{name}",))]


@pytest.fixture(scope="module", name="kept")
def _kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("dictionary")
    (folder / "key").write_bytes(SECRET)
    (folder / "token").write_text(TOKEN)
    config = folder / "inferwatch.yml"
    text = CONFIG.replace("KEY", str(folder / "key")).replace("TOKEN", str(folder / "token")).replace("MODEL", MODEL)
    config.write_text(text, "utf-8")
    stack = Stack(folder, "--config", str(config))
    try:
        stack.start()
        tokens, vectors = tokens_of(stack), embedded(stack, ASKED[:400])
        answered = asyncio.run(ask_all(stack, ASKED))
        embeddings = lambda: stack.total("inferwatch_drift_embeddings_total", result="ok")  # noqa: E731
        for number in range(20):  # of more than a hundred a second not all vote, nor are embedded
            if stack.total("inferwatch_drift_reference_votes") < VOTES or embeddings() < EMBEDDED:
                asyncio.run(ask_all(stack, ASKED[:200], again=f"round {number}"))
        replies = lambda: stack.total("inferwatch_canary_reference_replies")  # noqa: E731
        wait_until(lambda: replies() >= REPLIES, "the canary's replies", 60, lambda: str(replies()))
        pin(stack, "anonymous")
        pin(stack, "inferwatch-canary")
        asyncio.run(ask_all(stack, ASKED[:50], again="judged"))
        # Who voted is judged when it is sure that the engine is the same.
        wait_until(lambda: stack.total("inferwatch_drift_psi") > 0, "votes that were judged")
        asyncio.run(vote(stack, answered))
        exports = shown(stack, config)
        exports["spool"] = asyncio.run(spooled(stack))
        assert stack.stop_serving() == 0
        exports["log"] = (folder / "log").read_bytes()
        for file in (folder / "state").rglob("*"):
            if file.is_file():
                exports[str(file.relative_to(folder))] = file.read_bytes()
    finally:
        stack.close()
    ledger = folder / "state/ledger.sqlite3"
    values: dict[str, bytearray] = {}
    for table, value in rows(ledger):
        values.setdefault(table, bytearray()).extend(value + b"\n")
    exports |= {f"table {table}": bytes(found) for table, found in values.items()}
    [state] = memos(ledger, DRIFT_STATE)
    followed = msgspec.msgpack.decode(state, type=FollowedState)
    assert followed.watched is not None
    assert followed.text
    [canary] = memos(ledger, CANARY_STATE)
    assert followed.meaning is not None
    mean = array("f", followed.meaning.spread[: 4 * BUCKETS])
    assert len(mean) == BUCKETS
    kept = exports | {"drift's state": state, "canary's state": canary}
    return Kept(kept, tokens, followed.words, mean, vectors)


def dictionary() -> set[str]:
    """Return all words and all trigrams of what was said, as they stood there and in small letters; and whole texts."""
    said = (*SENTENCES, *PROBES, COMMENT)
    words = {word.strip(".,:") for text in said for word in text.split()}
    trigrams = {text[at : at + 3] for text in said for at in range(len(text) - 2)}
    found = words | trigrams
    return found | {each.lower() for each in found} | {*said, *ASKED[:50], USER, SESSION}


def test_everything_was_looked_at(kept: Kept) -> None:
    """There is something of each kind, so that there was something to find."""
    exports: dict[str, Any] = kept.exports
    for name in ("/metrics", "/drift?format=text", "/live/events", "spool", "log", "table requests", "table feedback"):
        assert len(exports[name]) > 50, name
    assert b"simulated-8b for anonymous: " in exports["/drift?format=text"]
    assert b"reference number 1, pinned" in exports["report ['--drift'] table"]
    assert json.loads(exports["report ['--drift'] json"])["canary"]["models"]
    assert b"inferwatch_drift_psi" in exports["/metrics"]
    assert exports["spool"].count(b"/v1/chat/completions") >= 10
    assert b"down" in exports["table feedback"]
    assert SECRET not in b"".join(exports.values())


def test_nothing_that_was_said_stands_there(kept: Kept) -> None:
    """No word, no prompt, no comment; neither escaped nor in base64."""
    words = {word for word in dictionary() if len(word) > 6}
    assert not said_in(kept.exports, words)
    assert said_in({"log": "Zwiebelkuchen".encode("utf-16-le") + b"= Zwiebelkuchen"}, words) == {"Zwiebelkuchen"}


def test_no_hash_of_it_is_found_without_the_key(kept: Kept) -> None:
    """Not of a word, a trigram, a prompt, a token of the canary's, a user or a session. With the key some are: it is the
    key that keeps them."""
    guesses = dictionary() | set(kept.tokens)
    assert not hashed_in(kept.exports, guesses, GUESSED_KEYS)
    found = hashed_in(kept.exports, guesses, [SECRET])
    assert {USER, *kept.tokens} <= found
    assert found <= {USER, SESSION, *kept.tokens}


@pytest.mark.parametrize("direction", ["prompt", "answer"])
def test_which_trigrams_were_said_is_not_told_without_the_key(kept: Kept, direction: str) -> None:
    """Whoever knows every sentence, and how trigrams are numbered, does not find them among the buckets: the best of a
    hundred guesses is what chance makes. With the key they stand out at once."""
    text = " ".join(SENTENCES if direction == "prompt" else (*PROSE, *LISTS, *CODE))
    _, counts, scores = kept.words[direction]
    assert not counts
    known = excess(scores, with_key(Codebook(SECRET), text))
    assert known > 20
    assert best_without_a_key(scores, text) < 5


def test_what_prompts_were_about_is_not_told_without_the_key(kept: Kept) -> None:
    """Whoever has the embedding model and knows what was asked does not find it in the mean of the sketches: without the
    key it points nowhere. With the key it is the same direction."""
    length = lambda vector: sqrt(sum(each * each for each in vector))  # noqa: E731
    units = [[each / length(vector) for each in vector] for vector in kept.embedded]
    about = [sum(column) / len(units) for column in zip(*units, strict=True)]
    assert alike(kept.mean, sketched(SECRET, about)) > 0.9
    guesses = [sketched(key, about) for key in GUESSED_KEYS if len(key) >= 16]
    guesses += [about[:BUCKETS], [sum(about[place::BUCKETS]) for place in range(BUCKETS)]]
    assert max(abs(alike(kept.mean, guess)) for guess in guesses) < 0.6
