"""history, beginnings: a budget that begins in mid-period knows what was spent since the period began."""

import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.structs import replace

from inferwatch.budget_rules import Rulebook
from inferwatch.record import LateCount, Outcome, RequestRecord, Share, TokenSource
from inferwatch.settings.budgets import BudgetRule
from inferwatch_collectors import metrics as m
from inferwatch_collectors.budgets import beginnings, history
from inferwatch_collectors.budgets.charges import Tariff
from inferwatch_collectors.budgets.meter import BudgetMeter
from inferwatch_collectors.ledger.sqlite_store import SqliteStore
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.report.reading import ReadError

from .conftest import NOW_S, NS, PRICES, budgets, finished, opened, rule

DAY_S = 86_400


class Site:
    """A ledger, and a meter that is committed into it; no board."""

    def __init__(self, folder: Path, *rules: BudgetRule) -> None:
        self.path = folder / "ledger.sqlite3"
        self.wall_s: float = NOW_S
        self.records: list[RequestRecord] = []
        self.shares: list[Share] = []
        self.late: list[LateCount] = []
        self._number = 0
        self.begin(*rules)

    def begin(self, *rules: BudgetRule) -> None:
        """A collector starts with these rules; what was not committed is lost."""
        self.ledger = SqliteStore(str(self.path), retention_ns=1 << 62, max_rows=1 << 40)
        self.store = MetricStore()
        self.store.restore(self.ledger.load_metrics())
        self.meter = self._meter(self.store, *rules)
        self.records, self.shares, self.late = [], [], []

    def _meter(self, store: MetricStore, *rules: BudgetRule) -> BudgetMeter:
        tariff = Tariff(PRICES, nanodollars_per_gpu_hour=3_600_000_000)
        meter = BudgetMeter(
            store, tariff, budgets(*rules) if rules else budgets_of_none(), None, lambda link, ids: None
        )
        meter.restore(0, self.wall_s)
        return meter

    def end(self) -> None:
        self.ledger.close()

    def use(self, *rules: BudgetRule) -> None:
        self.meter.use(budgets(*rules) if rules else budgets_of_none(), PRICES, 0)

    def request(self, at_s: float, completion: int | None = 100, **names: str) -> RequestRecord:
        """One that arrived at `at_s`, after which it is booked."""
        self._number += 1
        record = finished(opened(self._number, at_s=at_s, **names), completion, None if completion is None else 100)
        if completion is None:
            record = replace(record, outcome=Outcome.CLIENT_ABORT, token_source=TokenSource.NONE)
        self.records.append(record)
        self.meter.record(record)
        return record

    def share(self, record: RequestRecord, gpu: int | None, energy: int | None = None) -> Share:
        names = {
            name: getattr(record, name) for name in ("request_id", "wall_ns", "tenant", "user", "feature", "model")
        }
        share = Share(gpu_nanodollars=gpu, energy_uj=energy, **names)
        self.shares.append(share)
        self.meter.share(share)
        return share

    def count_late(self, record: RequestRecord) -> LateCount:
        names = {
            name: getattr(record, name) for name in ("request_id", "wall_ns", "tenant", "user", "feature", "model")
        }
        late = LateCount(
            operation="chat", outcome=record.outcome, prompt_tokens=40, completion_tokens=60, price_nanodollars=640_000,
            **names,
        )  # fmt: skip
        self.late.append(late)
        self.meter.late(late)
        return late

    def commit(self) -> None:
        self.ledger.commit(self.records, self.store.take_dirty(), self.shares, self.late)
        self.records, self.shares, self.late = [], [], []

    def read(self) -> list[tuple[str, int, history.Past]]:
        """As the thread does."""
        waiting = self.meter.beginnings.waiting()
        return [
            (rule.name, since, history.read(self.path, rule, self.wall_s, threading.Event())) for rule, since in waiting
        ]

    def take_in(self, found: list[tuple[str, int, history.Past]]) -> None:
        for each in found:
            for _ in self.meter.begin(*each):
                pass

    def tick(self, seconds: float = 0.0) -> None:
        self.wall_s += seconds
        self.meter.tick(round(self.wall_s * NS), self.wall_s, [])

    def spent(self, name: str = "acme") -> dict[tuple[str, ...], int]:
        """By account, those that spent anything; without estimates for what is not measured yet."""
        return settled(self.meter, name)


def settled(meter: BudgetMeter, name: str = "acme") -> dict[tuple[str, ...], int]:
    accounts = [account for account in meter.accounts.values() if account.rule.name == name]
    return {account.values: account.spending.spent for account in accounts if account.spending.spent}


def budgets_of_none() -> Any:
    return replace(budgets(), rules=())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(*rules: BudgetRule) -> Site:
        made.append(Site(tmp_path, *rules))
        return made[-1]

    yield make
    for each in made:
        each.end()


MakeSite = Callable[..., Site]
PRICE = 100 * 1_000 + 100 * 10_000


def test_a_budget_of_the_twentieth_knows_what_was_spent_since_the_first(site: MakeSite) -> None:
    """All of this month, nothing of the last one, of its tenant alone; and from then on as if it had always been there."""
    it = site()
    for day in (-12, -9, -8, -3, 0):  # the 10th of March is today
        it.request(NOW_S + day * DAY_S)
        it.request(NOW_S + day * DAY_S, tenant="other")
    it.commit()
    it.use(rule())
    it.request(NOW_S)  # while it is read
    it.commit()
    it.take_in(it.read())
    assert it.spent() == {(): 5 * PRICE}
    assert not it.meter.beginnings
    it.request(NOW_S + 1)
    assert it.spent() == {(): 6 * PRICE}
    it.commit()
    it.end()
    it.begin(rule())
    assert not it.meter.beginnings
    assert it.spent() == {(): 6 * PRICE}


def test_the_first_start_with_a_budget_on_an_old_ledger(site: MakeSite) -> None:
    """A collector that comes up with a rule that its ledger has not seen, too."""
    it = site()
    it.request(NOW_S, user="u1")
    it.request(NOW_S, user="u2", completion=None)
    it.commit()
    it.end()
    it.begin(rule(per=("user",)))
    it.commit()
    it.take_in(it.read())
    assert it.spent() == {("u1",): PRICE}


def test_a_snapshot_from_before_the_budget_is_not_taken(site: MakeSite) -> None:
    """What was booked and not yet committed when it began would be missing."""
    it = site()
    it.commit()
    it.request(NOW_S)
    it.use(rule())
    it.take_in(it.read())
    assert it.meter.beginnings
    it.commit()
    it.take_in(it.read())
    assert it.spent() == {(): PRICE}


def test_what_comes_between_snapshot_and_taking_in_counts_once(site: MakeSite) -> None:
    """Committed meanwhile or not."""
    it = site()
    it.request(NOW_S)
    it.use(rule())
    it.request(NOW_S)
    it.commit()
    found = it.read()
    it.request(NOW_S)
    it.commit()
    it.request(NOW_S)
    it.take_in(found)
    assert it.spent() == {(): 4 * PRICE}


def test_a_restart_in_between_begins_anew(site: MakeSite) -> None:
    """Killed before all accounts were taken in: read again, and nothing is doubled."""
    it = site()
    for number in range(4):
        it.request(NOW_S, user=f"u{number}")
    it.use(rule(per=("user",)))
    it.commit()
    [(name, since, past)] = it.read()
    steps = it.meter.begin(name, since, past)
    next(steps)
    it.commit()
    it.end()
    it.begin(rule(per=("user",)))
    it.request(NOW_S, user="u0")
    it.commit()
    it.take_in(it.read())
    assert it.spent() == {("u0",): 2 * PRICE} | {(f"u{number}",): PRICE for number in (1, 2, 3)}


@pytest.mark.parametrize(
    "changes", [{"unit": "tokens", "limit": 9000}, {"model": "q*"}, {"period": "week"}, {"time_zone": "Asia/Kolkata"}], ids=str
)  # fmt: skip
def test_other_terms_begin_anew(site: MakeSite, changes: dict[str, Any]) -> None:
    """A budget of the same name that measures something else is added up again; a limit alone changes nothing."""
    it = site(rule())
    it.commit()
    it.take_in(it.read())
    it.request(NOW_S)
    it.request(NOW_S, model="llama")
    it.use(rule(limit=7))
    assert not it.meter.beginnings
    it.use(rule(**changes))
    it.commit()
    it.take_in(it.read())
    expected = {"unit": 400, "model": PRICE}.get(next(iter(changes)), 2 * PRICE)
    assert it.spent() == {(): expected}


def test_requests_that_come_before_the_past_is_known_are_counted(site: MakeSite) -> None:
    """They may have been let in wrongly."""
    it = site()
    it.use(rule())
    it.meter.opened(opened(1))
    assert it.store.counter(m.BUDGET_UNCHECKED, ("history",)).value == 1
    it.commit()
    it.take_in(it.read())
    it.meter.opened(opened(2))
    assert it.store.counter(m.BUDGET_UNCHECKED, ("history",)).value == 1


def test_too_many_charges_meanwhile_begin_the_reading_anew(site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are bounded; what was read is not taken, what is read next is right."""
    monkeypatch.setattr(beginnings, "MAX_CHARGES", 3)
    it = site()
    it.use(rule())
    it.commit()
    found = it.read()
    for _ in range(5):
        it.request(NOW_S)
    it.take_in(found)
    assert it.meter.beginnings
    it.commit()
    it.take_in(it.read())
    assert it.spent() == {(): 5 * PRICE}


def test_of_many_accounts_the_fullest_are_taken_up(site: MakeSite) -> None:
    """As many as there may be."""
    it = site()
    for number in range(20):
        it.request(NOW_S, completion=100 + number, user=f"u{number}")
    it.meter.use(budgets(rule(per=("user",)), max_accounts=16), PRICES, 0)
    it.commit()
    it.take_in(it.read())
    assert it.spent().keys() == {(f"u{number}",) for number in range(4, 20)}


def test_the_hours_before_are_known_to_the_forecast(site: MakeSite) -> None:
    """A month that is ten days old when its budget comes has a forecast at once."""
    it = site()
    for hour in range(48):
        it.request(NOW_S - hour * 3600)
    it.use(rule(limit="0.2"))
    it.commit()
    it.take_in(it.read())
    it.tick(1)
    it.tick(61)
    it.meter.refresh()
    ratio = it.store.gauge(m.BUDGET_FORECAST_RATIO, ("acme", "", "", "", "expected")).value
    assert ratio == pytest.approx(48 * 0.0011 / 0.2 * (21.5 + 2) / 2, rel=0.2)


def test_a_ledger_that_is_away_is_an_error_and_a_reading_can_be_stopped(tmp_path: Path, site: MakeSite) -> None:
    """Neither hangs the collector."""
    with pytest.raises(ReadError, match="no ledger"):
        history.read(tmp_path / "none", Rulebook(budgets()).rules[0], NOW_S, threading.Event())
    it = site()
    it.commit()
    stopped = threading.Event()
    stopped.set()
    with sqlite3.connect(it.path) as connection:
        rows = ((number, f"t{number}") for number in range(300_000))
        connection.executemany(
            "INSERT INTO usage_keys (key, tenant, model, operation, user, feature, outcome, waste) "
            "VALUES (?, ?, '', '', '', '', 'ok', '')",
            rows,
        )
    with pytest.raises(ReadError, match="interrupted"):
        history.read(it.path, Rulebook(budgets(rule(tenant="*"))).rules[0], NOW_S, stopped)


def test_where_minutes_are_gone_hours_are_read(site: MakeSite) -> None:
    """A window that is longer than minutes are kept is known to the hour, and nothing in it is forgotten early."""
    it = site()
    for day in (-50, -38, -1, 0):
        it.request(NOW_S + day * DAY_S - 1700)
    it.commit()
    with sqlite3.connect(it.path) as connection:
        connection.execute("DELETE FROM usage_minute WHERE start_s < ?", (NOW_S - 35 * DAY_S,))
    it.use(rule(period="rolling", window_s=40 * DAY_S))
    it.commit()
    it.take_in(it.read())
    assert it.spent() == {(): 3 * PRICE}
    it.tick(2 * DAY_S - 1700)
    assert it.spent() == {(): 3 * PRICE}
    it.tick(6000)
    assert it.spent() == {(): 2 * PRICE}


# --- the property

RULES = st.builds(
    lambda unit, period, per, zone, patterns: rule(
        tenant=patterns[0], feature=patterns[1], user=patterns[2], per=per, time_zone=zone, **unit, **period
    ),
    unit=st.sampled_from(
        [
            {"unit": "dollars"},
            {"unit": "dollars", "basis": "gpu"},
            {"unit": "gpu_seconds"},
            {"unit": "joules"},
            {"unit": "tokens", "limit": 100},
            {"unit": "prompt_tokens", "limit": 100},
        ]
    ),
    period=st.sampled_from(
        [{"period": kind} for kind in ("hour", "day", "week", "month")]
        + [{"period": "rolling", "window_s": window_s} for window_s in (60, 3600, 700_000, 4_000_000)]
    ),
    per=st.sampled_from([(), ("tenant",), ("user",), ("tenant", "feature"), ("model", "user")]),
    zone=st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York"]),
    patterns=st.sampled_from([("*", "*", "*"), ("acme", "*", "*"), ("*", "?*", "*"), ("*", "*", "u*")]),
)
NAMES = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from(["acme", "beta"]),
        "user": st.sampled_from(["", "u1", "v2"]),
        "feature": st.sampled_from(["", "chat"]),
        "model": st.sampled_from(["qwen", "llama"]),
    }
)
# Whole minutes: what lies across the beginning of a rolling window is rounded to them.
AGES_S = st.sampled_from([0, 60, 120, 1_800, 3_600, 7_200, 40_000, 90_000, 400_000, 900_000, 3_000_000])
REQUEST = st.tuples(st.just("request"), AGES_S, NAMES, st.integers(0, 500), st.integers(0, 2))
STEPS = st.lists(
    REQUEST
    | st.tuples(st.just("settle"), st.integers(0, 10**10))
    | st.sampled_from([("commit",), ("commit",), ("read",), ("take_in",), ("kill",)]),
    max_size=30,
)


@hypothesis_settings(max_examples=30, deadline=None)
@given(asked=RULES, before=STEPS, after=STEPS)
def test_a_budget_that_came_late_has_the_same_sums_as_one_that_was_always_there(
    asked: BudgetRule, before: list[Any], after: list[Any]
) -> None:
    """Whatever is booked, settled, counted late, committed, read, taken in and killed, in any order, to the nano-dollar."""
    with tempfile.TemporaryDirectory() as folder:
        it = Site(Path(folder))
        always = it._meter(MetricStore(), asked)
        for name, since in [(each.name, since) for each, since in always.beginnings.waiting()]:
            for _ in always.begin(name, since, history.Past(since, 0, 0, {})):
                pass
        drive(it, always, before, None)
        it.use(asked)
        drive(it, always, after, asked)
        it.commit()
        it.take_in(it.read())
        assert not it.meter.beginnings
        mine = it.spent()
        theirs = settled(always)
        it.end()
    if asked.unit == "gpu_seconds":  # rounded down once, not for each request
        assert mine.keys() >= theirs.keys()
        assert all(0 <= mine[values] - theirs.get(values, 0) <= len(before) + len(after) for values in mine)
    else:
        assert mine == theirs


def drive(it: Site, always: BudgetMeter, steps: list[Any], asked: BudgetRule | None) -> None:
    """Do `steps` to both; what a killed collector had not committed is told again."""
    found: list[tuple[str, int, history.Past]] = []
    open_ones: list[RequestRecord] = []
    for step in steps:
        if step[0] == "request":
            _, age_s, names, completion, kind = step
            record = it.request(NOW_S - age_s, None if kind == 2 else completion, **names)
            always.record(record)
            if kind == 2:
                always.late(it.count_late(record))
            open_ones.append(record)
        elif step[0] == "settle" and open_ones:
            always.share(it.share(open_ones.pop(), step[1], step[1] // 7))
        elif step[0] == "commit":
            it.commit()
        elif step[0] == "read":
            found = it.read()
        elif step[0] == "take_in":
            it.take_in(found)
            found = []
        elif step[0] == "kill":
            told = (it.records, it.shares, it.late)
            it.end()
            it.begin(*([asked] if asked is not None else []))
            for record in told[0]:
                it.records.append(record)
                it.meter.record(record)
            for share in told[1]:
                it.shares.append(share)
                it.meter.share(share)
            for late in told[2]:
                it.late.append(late)
                it.meter.late(late)
            found = []
