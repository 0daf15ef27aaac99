"""From prompts that drift, or a detector that is off, to the ticket: each arrives as it is stated, and not without a reason.

On a fast clock (`tests/support/world.py`). Evidence is in weeks of real time all the same: it has no faster clock, so
there are many votes, and a reference of as few as one is pinned from.
"""

import random
import re
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from monitoring import ROOT
from stack import MODEL, chat, wait_until
from world import World

# Prompts of one language are sentences of it in any order, with a figure in between.
ENGLISH = (
    "How do I move the old records to the other table without stopping the service?",
    "The driver said that it would not be there before noon, and I have to leave by one.",
    "Which of these two offers is better if we stay for more than three years?",
    "Please write a short note to the people who were at the meeting on Monday.",
    "My sister has been using it for a month and she is not happy with it at all.",
    "What can be done about the noise when all of the fans are on?",
    "I was told that there is a discount for students, but I do not see it in your shop.",
    "There are some words in this letter which I do not understand.",
    "We had the same problem last year, and it went away by itself.",
    "Is it safe to turn the machine off while the light is on?",
)
GERMAN = (
    "Wie kann ich die alten Daten in die andere Tabelle bringen, ohne dass der Dienst steht?",
    "Der Fahrer hat gesagt, dass er nicht vor Mittag da ist, und ich muss um eins gehen.",
    "Welches der beiden Angebote ist besser, wenn wir mehr als drei Jahre bleiben?",
    "Bitte schreib eine kurze Nachricht an die Leute, die am Montag bei dem Treffen waren.",
    "Meine Schwester benutzt es seit einem Monat und ist damit nicht zufrieden.",
    "Was kann man gegen den Lärm tun, wenn alle Lüfter an sind?",
    "Mir wurde gesagt, dass es einen Rabatt für Studenten gibt, aber ich sehe ihn nicht.",
    "In diesem Brief sind einige Wörter, die ich nicht verstehe.",
    "Wir hatten das gleiche Problem im letzten Jahr, und es ging von selbst weg.",
    "Ist es sicher, die Maschine auszuschalten, solange das Licht an ist?",
)
SHARE = 0.25  # of the prompts that turn to another language

MOVES, STAYS = "moves", "stays"
# Labels that each of these tickets has.
EVERY = {"severity": "ticket", "team": "serving", "job": "inferwatch", "instance": "host1:9480"}
# 512 teach the trigrams, 256 the edges, and 1,000 are counted.
VOTES = 1_256
# So that the machine has time for scrapes beside it.
PAUSE_S = 0.03
SETTINGS: dict[str, Any] = {
    # A late scrape would begin the ticket's `for` anew, and on a busy machine one takes longer than the usual second.
    "interval": "2s",
    "drift": {"text": True, "votes_per_hour": 360_000, "reference_requests_min": 1_000},
    "quality": {"listen": True},
}


class Users:
    """What they ask: SHARE of it in German, once they have turned."""

    def __init__(self, seed: int) -> None:
        self.turned = threading.Event()
        self._rng = random.Random(seed)

    def ask(self) -> dict[str, Any]:
        language = GERMAN if self.turned.is_set() and self._rng.random() < SHARE else ENGLISH
        sentences = self._rng.choices(language, k=self._rng.randint(2, 6))
        # A plain answer has no pace, which is the machine's.
        return chat(" ".join((*sentences, str(self._rng.randrange(10**6)))), stream=False, max_tokens=2)


def tickets(world: World) -> list[dict[str, Any]]:
    """Return each alert that somebody was told of by a ticket."""
    return [each for arrival in world.box.to("/hook/ticket") for each in arrival.content["alerts"]]


def named(world: World, name: str) -> list[dict[str, Any]]:
    """Return those of one name."""
    return [each for each in tickets(world) if each["labels"]["alertname"] == name]


def queries(runbook: str) -> list[str]:
    """Return the queries that the runbook has one type."""
    text = (ROOT / "alerts" / "runbooks" / f"{runbook}.md").read_text("utf-8")
    return re.findall(r"```promql\n(.*?)```", text, re.DOTALL)


def pin(world: World, tenant: str) -> str:
    """Have the reference pinned, as the page says; return what is said to that."""
    url = f"{world.host.stack.admin}/drift/pin?model={MODEL}&tenant={tenant}"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10) as reply:
        return str(reply.read().decode().strip())


def drift_in_words(world: World) -> str:
    """Return the first check of the runbook."""
    with urllib.request.urlopen(f"{world.host.stack.admin}/drift?format=text", timeout=10) as reply:
        return str(reply.read().decode())


@pytest.mark.timeout(360)
def test_prompts_that_turn_to_another_language_are_a_ticket(make_world: Callable[..., World]) -> None:
    """Of two tenants with a pinned reference one has a quarter of its prompts turn to German: one ticket, for it and its
    prompts, whose runbook then says what moved; of the other nobody hears anything in the same time."""
    world = make_world(**SETTINGS)
    stack = world.host.stack
    users = {tenant: Users(seed) for seed, tenant in enumerate((MOVES, STAYS))}
    for tenant, each in users.items():
        world.send(each.ask, at_once=4, pause_s=PAUSE_S, headers={"x-inferwatch-tenant": tenant})

    def votes(tenant: str) -> float:
        return stack.total("inferwatch_drift_reference_votes", tenant=tenant)

    seen = lambda: f"{votes(MOVES)} and {votes(STAYS)} votes"  # noqa: E731
    wait_until(lambda: min(votes(MOVES), votes(STAYS)) >= VOTES, "votes for a reference", 180, seen)
    assert [pin(world, tenant).split("\n")[0] for tenant in users] == ["pinned", "pinned"]
    began_s = time.time()
    users[MOVES].turned.set()
    asked = stack.total("inferwatch_requests_total", tenant=STAYS)
    wait_until(lambda: bool(named(world, "InferwatchDrift")), "the ticket", 120, lambda: drift_in_words(world))
    took_s = time.time() - began_s
    time.sleep(2)  # another one would be here by now
    print(f"ticket after {took_s:.1f} s")

    for alert in named(world, "InferwatchDrift"):
        assert alert["labels"] == {
            **EVERY,
            "alertname": "InferwatchDrift",
            "model": MODEL,
            "tenant": MOVES,
        }
        notes = alert["annotations"]
        assert notes["summary"] == f"Users of {MODEL} ({MOVES}) no longer ask, or get, what they used to"
        assert re.fullmatch(r"evidence worth \S+ weeks without a false alarm", notes["value"])
        assert notes["runbook_url"].endswith("/InferwatchDrift.md")
        assert notes["dashboard"].endswith("/d/inferwatch-quality")
    assert world.box.groups("page") == set()

    said = drift_in_words(world)
    moved, stayed = (said.partition(f"{MODEL} for {tenant}: ")[2].partition("\n\n")[0] for tenant in users)
    assert moved.startswith("DRIFTED, evidence ")
    figures = re.search(r"frequent German words of prompts: any in ([0-9.]+)% of prompts before, ([0-9.]+)% now", moved)
    assert figures is not None, moved
    # No English sentence has any; of what was asked since, no more than SHARE has.
    assert float(figures[1]) <= 0.2
    assert 3 < float(figures[2]) < 100 * SHARE + 10
    italian = moved.find("Italian words")
    assert italian < 0 or figures.start() < italian
    assert " of answers" not in moved
    assert stayed.startswith("as in the reference, ")
    evidence, effects = queries("InferwatchDrift")
    shown = {(each["metric"]["tenant"], each["metric"]["direction"]): float(each["value"][1])
             for each in world.prometheus.query(evidence)}  # fmt: skip
    assert shown[MOVES, "prompt"] >= 20
    assert max(weeks for key, weeks in shown.items() if key != (MOVES, "prompt")) < 20
    assert "prompt_german" in {each["metric"]["drift_feature"] for each in world.prometheus.query(effects)}

    # Who stayed was judged all the while, by as many votes.
    assert stack.total("inferwatch_drift_judging", tenant=STAYS) == 1
    assert stack.total("inferwatch_requests_total", tenant=STAYS) - asked > 300
    [most] = world.prometheus.query(f'max(max_over_time(inferwatch_drift_evidence{{tenant="{STAYS}"}}[10m]))')
    assert float(most["value"][1]) < 20


def test_a_detector_that_is_off_is_a_ticket(make_world: Callable[..., World]) -> None:
    """A tenant without enough votes for a reference, and a canary that asks for a model that nobody serves."""
    blind = ("InferwatchDriftBlind", "InferwatchCanaryOff")
    world = make_world(soon=blind, canary={"enabled": True, "models": ["gone"], "interval_s": 0.1}, **SETTINGS)
    world.send(Users(0).ask, at_once=1, pause_s=0.2, headers={"x-inferwatch-tenant": STAYS})
    wait_until(lambda: all(named(world, name) for name in blind), "the tickets", 60, lambda: str(tickets(world)))
    [drift, *_], [canary, *_] = (named(world, name) for name in blind)
    assert drift["labels"] == {**EVERY, "alertname": blind[0], "model": MODEL, "tenant": STAYS}
    assert drift["annotations"]["summary"].endswith(
        f"{MODEL} for {STAYS} changed: there is no reference yet, or nobody votes"
    )
    assert canary["labels"] == {**EVERY, "alertname": blind[1]}
    few = queries(blind[0])[0]
    assert {each["metric"]["tenant"] for each in world.prometheus.query(few)} == {STAYS}
    why = queries(blind[1])[0]
    assert [each["metric"]["reason"] for each in world.prometheus.query(why)] == ["unserved"]
    assert f"{MODEL} for {STAYS}: learning, " in drift_in_words(world)
    assert world.box.groups("page") == set()
