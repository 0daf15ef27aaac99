"""The live page in a real browser, before the real Inferwatch: its numbers are those of `/metrics`, and it lives on."""

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import axe_core_python
import pytest
from agreement import Pair, agreed
from browser import Page, browsing
from monitoring import Prometheus, closing
from stack import Stack, chat, client, hang_up_after, running, send

from inferwatch_collectors.live.prometheus import GRID_S
from inferwatch_simulator.readings import Scrape, total

AXE = Path(axe_core_python.__file__).with_name("axe.min.js")

CONFIG = """
live: {{prometheus_url: "{prometheus}", instance: host}}
cost: {{hourly_dollars: 3.5}}
gpu: {{source: none}}
prices:
  rules: [{{input: 1, output: 2}}]
budgets:
  rules:
    - {{name: day, per: [tenant], limit: 1000000, unit: tokens, period: day}}
    - {{name: month, limit: 5}}
"""

# Two that fire at once, one that waits, one of another host, and the one that says that rules are evaluated.
RULES = """
groups:
  - name: live
    interval: 1s
    rules:
      - {alert: InferwatchWatchdog, expr: vector(1), labels: {severity: none}}
      - alert: InferwatchBusy
        expr: sum by (instance) (inferwatch_requests_total) > 0
        labels: {severity: page}
        annotations: {summary: "{{ $labels.instance }} has work"}
      - {alert: InferwatchIdle, expr: vector(0) == 0, labels: {severity: ticket}}
      - {alert: InferwatchSlow, expr: vector(1), for: 1h, labels: {severity: page}}
      - {alert: InferwatchElsewhere, expr: vector(1), labels: {severity: page, instance: other}}
"""

SIZES = {"desk": (1400, 900, False), "phone": (390, 844, True)}


@pytest.fixture(scope="module", name="prometheus")
def _prometheus(tmp_path_factory: pytest.TempPathFactory) -> Prometheus:
    return Prometheus(tmp_path_factory.mktemp("monitoring"))


@pytest.fixture(scope="module", name="stack")
def _stack(tmp_path_factory: pytest.TempPathFactory, prometheus: Prometheus) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("live")
    config = folder / "inferwatch.yml"
    config.write_text(CONFIG.format(prometheus=prometheus.url))
    rules = folder / "rules"
    rules.mkdir()
    (rules / "live.yml").write_text(RULES)
    with running(folder, "--config", str(config)) as stack, closing(prometheus):
        prometheus.start({"host": f"127.0.0.1:{stack.admin_port}"}, rules=rules)
        yield stack


@pytest.fixture(name="page")
async def _page(stack: Stack) -> AsyncIterator[Page]:
    async with browsing() as page:
        await page.size(*SIZES["desk"][:2])
        await page.open(f"{stack.admin}/")
        await page.until("document.getElementById('health').textContent.startsWith('well')")
        yield page


async def ask(stack: Stack, count: int, **headers: str) -> None:
    async with client() as session:
        await asyncio.gather(
            *(send(session, stack.url, chat(stream=i % 2 == 0), headers=headers) for i in range(count))
        )


async def text(page: Page, selector: str) -> str:
    return str(await page.run(f"document.querySelector({selector!r}).innerText"))


def figure(shown: str, pattern: str) -> float:
    found = re.search(pattern, shown)
    assert found is not None, shown
    return float(found[1].replace(",", ""))


async def table(page: Page, name: str) -> list[list[str]]:
    """Return the texts of a table's rows."""
    script = f"[...document.querySelectorAll('#{name} tbody tr')].map((r) => [...r.cells].map((c) => c.innerText))"
    rows: list[list[str]] = await page.run(script)
    return rows


def tokens(scrape: Scrape, **where: str) -> float:
    return sum(total(scrape, "inferwatch_tokens_total", type=kind, **where) for kind in ("prompt", "completion"))


def dollars(scrape: Scrape, name: str = "inferwatch_cost_dollars_total", **where: str) -> Any:
    """Return a sum as it may be shown: with four places."""
    return pytest.approx(total(scrape, name, **where), abs=6e-5)


async def cards(stack: Stack, page: Page) -> list[Pair]:
    """Each card's figure beside the sum of its series."""
    shown = {name: await text(page, f"#card-{name}") for name in ("requests", "prompt", "completion", "cost")}
    scrape = await asyncio.to_thread(stack.scrape)
    counted = {
        "requests": total(scrape, "inferwatch_requests_total"),
        "prompt": total(scrape, "inferwatch_tokens_total", type="prompt"),
        "completion": total(scrape, "inferwatch_tokens_total", type="completion"),
    }
    return [
        *(Pair(name, figure(shown[name], r"([\d,]+) in all"), booked) for name, booked in counted.items()),
        Pair("cost", figure(shown["cost"], r"\$([\d.]+)"), dollars(scrape, basis="gpu")),
        Pair("in flight", figure(await text(page, "#card-in-flight"), r"^(\d+)"), 0),
    ]


async def tenants(stack: Stack, page: Page) -> list[Pair]:
    """Each tenant's requests, tokens and costs beside the sums of its series."""
    rows = await table(page, "tenants")
    scrape = await asyncio.to_thread(stack.scrape)
    pairs = [Pair("tenants", len(rows), 3)]
    for row in rows:
        tenant, (requests, counted, cost) = row[0], row[5:8]
        booked = total(scrape, "inferwatch_requests_total", tenant=tenant)
        pairs += [
            Pair(f"requests of {tenant}", figure(requests, r"([\d,]+)"), booked),
            Pair(f"tokens of {tenant}", figure(counted, r"([\d,]+)"), tokens(scrape, tenant=tenant)),
            Pair(f"cost of {tenant}", figure(cost, r"\$([\d.]+)"), dollars(scrape, tenant=tenant, basis="gpu")),
        ]
    return pairs


async def test_every_number_is_that_of_metrics(stack: Stack, page: Page) -> None:
    """Cards and tables, at rest: the sums that a scrape gives."""
    await ask(stack, 12, authorization="Bearer one")
    await ask(stack, 5, authorization="Bearer two")
    async with client() as session:
        await hang_up_after(session, stack.url, chat(max_tokens=400), 5)
    await asyncio.to_thread(stack.charged)
    await agreed(lambda: cards(stack, page))
    await agreed(lambda: tenants(stack, page))

    async def budgets() -> list[Pair]:
        spent = {(row[0], row[1]): row[2] for row in await table(page, "budgets")}
        scrape = await asyncio.to_thread(stack.scrape)
        month = dollars(scrape, "inferwatch_budget_spent_dollars", budget="month")
        return [
            Pair("budgets", len(spent), 4),
            Pair("month", figure(spent["month", ""], r"\$([\d.]+)"), month),
        ]

    await agreed(budgets)
    hidden = await page.run("getComputedStyle(document.getElementById('leave')).display")
    assert hidden == "none"  # no token is asked for
    assert "client_abort" in await text(page, "#unhappy tbody")


async def followed(stack: Stack, page: Page) -> list[Pair]:
    """Each stream that drift follows: votes wait for the engine, and come some time after the requests."""
    rows = await table(page, "drift")
    scrape = await asyncio.to_thread(stack.scrape)
    pairs = [Pair("streams", len(rows), len(scrape.samples["inferwatch_drift_judging"]))]
    for model, tenant, state, votes, *evidence in rows:
        counted = total(scrape, "inferwatch_drift_reference_votes", model=model, tenant=tenant)
        pairs += [
            Pair(f"state of {tenant}", state, "learning"),
            Pair(f"votes of {tenant}", figure(votes, r"([\d,]+)"), counted),
            Pair(f"evidence of {tenant}", evidence, ["–"] * 3),
        ]
    return [*pairs, Pair("card", f"learning: {len(rows)}" in await text(page, "#card-drift"), True)]


async def signs(stack: Stack, page: Page) -> list[Pair]:
    """Each sign of a bad answer: how often, and in which part of the requests."""
    rows, card = await table(page, "quality"), await text(page, "#card-quality")
    scrape = await asyncio.to_thread(stack.scrape)
    all_signs = total(scrape, "inferwatch_quality_signs_total")
    pairs = [Pair("card", figure(card, r"([\d,]+)"), all_signs)]
    for model, tenant, sign, count, share in rows:
        have = total(scrape, "inferwatch_quality_signs_total", model=model, tenant=tenant, sign=sign.replace(" ", "_"))
        asked = total(scrape, "inferwatch_requests_total", model=model, tenant=tenant)
        pairs += [
            Pair(f"{sign} of {tenant}", figure(count, r"([\d,]+)"), have),
            Pair(f"part of {tenant}", figure(share, r"([\d.]+) %"), pytest.approx(100 * have / asked, abs=0.06)),
        ]
    return [*pairs, Pair("abandoned", "abandoned" in {row[2] for row in rows}, True)]


async def test_drift_and_signs_of_bad_answers(stack: Stack, page: Page) -> None:
    """What is followed, how far its reference is, and each sign with its part of the requests: as a scrape has them."""
    await ask(stack, 3, authorization="Bearer three")
    async with client() as session:
        await hang_up_after(session, stack.url, chat(max_tokens=400), 5)
    await asyncio.to_thread(stack.charged)
    await agreed(lambda: followed(stack, page))
    await agreed(lambda: signs(stack, page))


async def test_active_alerts_are_prometheus(stack: Stack, page: Page, prometheus: Prometheus) -> None:
    """Those of this host, pages first; one that is new comes by itself; and the browser asks no Prometheus."""
    await ask(stack, 1)
    await page.until("document.querySelector('#card-alerts').innerText.startsWith('2 firing')", 40)
    assert "1 pending" in await text(page, "#card-alerts")
    rows = await table(page, "alerts")
    assert [row[:3] for row in rows] == [
        ["Busy", "page", "firing"],
        ["Idle", "ticket", "firing"],
        ["Slow", "page", "pending"],
    ]
    assert rows[0][4] == "host has work"
    told = await asyncio.to_thread(prometheus.get, "/api/v1/alerts")
    assert {row[0] for row in rows} | {"Watchdog", "Elsewhere"} == {
        each["labels"]["alertname"].removeprefix("Inferwatch") for each in told["alerts"]
    }
    assert not any(url.startswith(prometheus.url) for url in page.requests)


def rate_known(prometheus: Prometheus) -> bool:
    """Whether requests have a rate in Prometheus, at the last point that the page asks for."""
    at_s = time.time() // GRID_S * GRID_S
    found = prometheus.over_time("sum(rate(inferwatch_requests_total[240s]))", at_s, at_s, 1)
    return any(float(value) > 0 for series in found for _, value in series["values"])


async def test_what_is_older_is_prometheus(stack: Stack, page: Page, prometheus: Prometheus) -> None:
    """A day by key, each chart's last value that of the same query there; a point memory has not is from there, too."""
    await ask(stack, 20)
    # The page keeps what it was told for minutes: Prometheus must have seen two scrapes, and requests between them.
    while not await asyncio.to_thread(rate_known, prometheus):
        await ask(stack, 2)
        await asyncio.sleep(0.5)
    await page.until("!document.querySelector('#range option[value=\"1440\"]').hidden")
    await page.press("5")
    await page.until("document.getElementById('range').value === '1440'")
    await page.until("document.querySelector('.chart [role=img]').ariaLabel.includes('all 0.')", 20)
    told = await page.run("fetch('/live/history?minutes=1440').then((r) => r.json())")
    assert told["fault"] == ""
    for name, query in {
        "requests": "sum(rate(inferwatch_requests_total[240s]))",
        "in_flight": "sum(inferwatch_requests_in_flight)",
    }.items():
        [series] = await asyncio.to_thread(prometheus.over_time, query, told["time"][-1], told["time"][-1], 1)
        assert told[name][-1] == float(series["values"][0][1])
    label = await page.run("document.querySelector('.chart [role=img]').ariaLabel")
    assert figure(label, r"all ([\d.]+)") == pytest.approx(told["requests"][-1], abs=0.051)
    stack.kill("inferwatch_collectors")
    await page.until("document.getElementById('health').textContent.startsWith('connection lost')")
    await page.until("document.getElementById('health').textContent.startsWith('well')", 30)
    filled = {"requests": []}
    while not any(filled["requests"]):  # memory's part waits for nobody: Prometheus is asked meanwhile
        filled = await page.run("fetch('/live/history?minutes=60').then((r) => r.json())")
        await asyncio.sleep(0.5)
    assert filled["time"] == sorted(filled["time"])


async def test_a_prometheus_that_is_away_is_words(stack: Stack, tmp_path: Path) -> None:
    """Charts and alerts say that they do not know; the rest goes on."""
    config = tmp_path / "inferwatch.yml"
    config.write_text(CONFIG.format(prometheus="http://127.0.0.1:1"))
    with running(tmp_path, "--config", str(config)) as lonely:
        async with browsing() as page:
            await page.open(f"{lonely.admin}/#range=1440")
            await page.until("document.getElementById('health').textContent.startsWith('well')")
            await page.until("document.getElementById('charts-note').innerText.includes('Connection refused')")
            await page.until("document.querySelector('#alerts tbody').innerText.includes('Connection refused')")
            assert (await text(page, "#card-alerts")).startswith("–")
            assert page.errors == []


async def test_streams_are_shown_as_they_stream(stack: Stack, page: Page) -> None:
    """A row while it runs, with tokens that grow; none after it."""
    async with client() as session:
        running_one = asyncio.ensure_future(send(session, stack.url, chat(max_tokens=600)))
        await page.until("document.getElementById('running').textContent === '1'")
        await page.until("Number(document.querySelector('#streams tbody tr').cells[5].innerText) > 50")
        before = int(await page.run("Number(document.querySelector('#streams tbody tr').cells[5].innerText)"))
        await page.until(f"Number(document.querySelector('#streams tbody tr').cells[5].innerText) > {before}")
        await running_one
    await page.until("document.getElementById('running').textContent === '0'")
    assert "nothing is under way" in await text(page, "#streams tbody")


async def test_it_survives_a_restart_of_the_collector(stack: Stack, page: Page) -> None:
    """It says that the connection is lost, and goes on by itself when it is back, with the same sums."""
    requests = total(await asyncio.to_thread(stack.charged), "inferwatch_requests_total")
    await page.until(f"document.querySelector('#card-requests small').innerText.startsWith('{requests:,.0f} ')")
    before = await text(page, "#card-requests small")
    stack.kill("inferwatch_collectors")
    await page.until("document.getElementById('health').textContent.startsWith('connection lost')")
    await page.until("document.getElementById('health').textContent.startsWith('well')", 30)
    assert await text(page, "#card-requests small") == before
    await ask(stack, 1)
    more = requests + 1
    await page.until(f"document.querySelector('#card-requests small').innerText.startsWith('{more:,.0f} ')", 20)


async def test_nothing_leaves_the_machine_and_nothing_fails(stack: Stack, page: Page) -> None:
    """Every request goes to the admin port; the console has no error."""
    await asyncio.sleep(6)  # with a renewal of the history
    assert page.errors == []
    assert {url for url in page.requests if not url.startswith(f"{stack.admin}/")} == set()


async def test_one_signs_in_where_a_token_is_asked_for(tmp_path: Path) -> None:
    """The form, by keyboard; a wrong token is told; the view in the address stays; a new token ends the session."""
    token = tmp_path / "token"
    token.write_text("first-token-of-ours")
    with running(tmp_path, "--token-file", str(token)) as stack:
        async with browsing() as page:
            await page.open(f"{stack.admin}/#range=60")
            await page.until("location.pathname === '/login' && document.activeElement.name === 'token'")
            await page.run(await asyncio.to_thread(AXE.read_text, "utf-8"))
            assert await page.run("axe.run().then((r) => r.violations.map((v) => v.id))") == []
            await _sign_in(page, "wrong")
            await page.until("document.querySelector('.wrong')?.innerText === 'That is not the token.'")
            await _sign_in(page, "first-token-of-ours")
            await page.until("document.getElementById('health')?.textContent.startsWith('well')")
            assert await page.run("location.hash") == "#range=60"
            assert await page.run("document.cookie") == ""
            assert not await page.run("document.getElementById('leave').hidden")
            token.write_text("second-token-of-ours")
            stack.supervisor.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
            await page.until("location.pathname === '/login'", 30)
            await _sign_in(page, "second-token-of-ours")
            await page.until("document.getElementById('health')?.textContent.startsWith('well')")
            await page.run("document.querySelector('#leave button').click()")
            await page.until("location.pathname === '/login'")
            assert {url for url in page.requests if not url.startswith(f"{stack.admin}/")} == set()


async def _sign_in(page: Page, token: str) -> None:
    await page.until("document.getElementById('login')?.action.endsWith(location.hash)")
    await page.run("document.querySelector('[name=token]').value = ''")
    await page.run("document.querySelector('[name=token]').focus()")
    for character in token:
        await page.press(character)
    await page.press("Enter")


async def test_the_view_is_in_the_url(stack: Stack, page: Page) -> None:
    """Range, theme and sorting come back with it; keys work without a mouse."""
    await page.press("1")
    await page.until("document.getElementById('range').value === '5'")
    await page.run("document.querySelectorAll('#tenants th button')[5].click()")
    await page.run("document.getElementById('theme').value = 'dark'")
    await page.run("document.getElementById('theme').dispatchEvent(new Event('change'))")
    fragment = str(await page.run("location.hash"))
    assert {"range=5", "theme=dark", "sort-tenants=5d"} <= set(fragment.removeprefix("#").split("&"))
    await page.call("Page.navigate", url="about:blank")
    await page.open(f"{stack.admin}/{fragment}")
    await page.until("document.documentElement.dataset.theme === 'dark'")
    await page.until("document.getElementById('range').value === '5'")
    await page.until("document.querySelectorAll('#tenants th')[5].ariaSort === 'descending'")
    await page.press("p")
    await page.until("document.getElementById('pause').getAttribute('aria-pressed') === 'true'")


async def test_a_page_that_nobody_looks_at_holds_no_connection(page: Page) -> None:
    """Paused, or behind another tab; when it is seen again, it goes on."""

    async def asked_for(streams: int) -> None:
        while sum(url.endswith("/live/events") for url in page.requests) < streams:
            await asyncio.sleep(0.05)

    async def hide(hidden: str) -> None:
        await page.run(f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}})")
        await page.run("document.dispatchEvent(new Event('visibilitychange'))")

    await page.until("document.getElementById('health').textContent.startsWith('well')")
    await asked_for(1)
    await page.press("p")
    await page.press("p")
    await asked_for(2)  # anew: the first one was closed
    await hide("true")
    await hide("false")
    await asked_for(3)
    await page.run("document.getElementById('health').textContent = ''")
    await page.until("document.getElementById('health').textContent.startsWith('well')")


async def test_the_keyboard_reaches_everything(page: Page) -> None:
    """Tab goes from the skip link through the controls to the tables, and what has the focus is to be seen."""
    reached = []
    for _ in range(12):
        await page.press("Tab")
        reached.append(
            await page.run(
                "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
            )
        )
    assert reached[:4] == ["skip", "range", "theme", "pause"]
    assert "scroll" in reached
    assert await page.run("getComputedStyle(document.activeElement).outlineStyle") != "none"


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_accessibility(stack: Stack, page: Page, size: str, scheme: str) -> None:
    """axe-core finds nothing: contrast, names, roles, order; on a phone nothing is wider than the screen."""
    width, height, mobile = SIZES[size]
    await page.size(width, height, mobile=mobile)
    await page.prefer(scheme)
    await ask(stack, 2)
    await asyncio.sleep(2)
    await page.run(await asyncio.to_thread(AXE.read_text, "utf-8"))
    violations = await page.run("axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes.map((n) => n.html)]))")
    assert violations == []
    # The window of a phone grows with what is too wide for it: what counts is the width that it has.
    assert await page.run("document.documentElement.scrollWidth") <= width
