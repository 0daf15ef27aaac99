"""meter: from what relays tell to what is spent, published, remembered, and cut."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition
from hypothesis.stateful import rule as step
from msgspec.structs import replace

from inferwatch.board import COUNT_MASK, KNOWN, RELEASED_WORST, SPENT, TAKEN_WORST, Board
from inferwatch.budget_rules import Names, digest_of
from inferwatch.record import ErrorType, LateCount, Outcome, RequestRecord, Share, TokenSource
from inferwatch.relay.admission import Admission, Budgeting, BudgetRefusal
from inferwatch.relay.reckoning import Wish
from inferwatch.settings.budgets import Budgets
from inferwatch.tap import Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.budgets import account as accounts
from inferwatch_collectors.budgets import exported
from inferwatch_collectors.budgets.charges import Tariff
from inferwatch_collectors.budgets.expected import MIN_SEEN
from inferwatch_collectors.budgets.holds import FIRST_AUDIT_NS
from inferwatch_collectors.budgets.meter import IDLE_S, TICK_S, BudgetMeter
from inferwatch_collectors.exchange import Progress
from inferwatch_collectors.metric_store import MetricStore

from .conftest import NOW_S, NS, PRICES, budgets, finished, opened, rule

OpenBoard = Callable[..., Board]
ACME = Names("acme", "", "", "qwen")
DAY_S = 86_400


class Link:
    """A connected relay with streams that are under way."""

    def __init__(self) -> None:
        self.entries: dict[int, Any] = {}
        self.cut: list[int] = []
        self.lag_ns = 0

    def stream(self, frame: Open, completion: int, prompt: int | None = 100, lasted_ns: int = 0) -> None:
        progress = Progress(0 if lasted_ns else None, lasted_ns, prompt, 0, completion)
        self.entries[frame.id] = SimpleNamespace(opened=frame, exchange=SimpleNamespace(progress=progress))


class Host:
    """One collector after another, and the relays' gate, on one board; the ledger is a dict of rows."""

    def __init__(self, open_board: OpenBoard, settings: Budgets, *, per_gpu_hour: int | None = None) -> None:
        self._open_board = open_board
        self.settings = settings
        self._per_gpu_hour = per_gpu_hour
        self.now_ns = time.monotonic_ns()  # the board has it from its making
        self.wall_s: float = NOW_S
        self.rows: dict[tuple[str, bytes], bytes] = {}
        self.link = Link()
        self.board = open_board()
        self.begin()

    def begin(self) -> None:
        """A collector starts, and finds what was committed."""
        self.store = MetricStore()
        self.store.restore([(name, labels, data) for (name, labels), data in self.rows.items()])
        self.meter = BudgetMeter(
            self.store,
            Tariff(PRICES, self._per_gpu_hour),
            self.settings,
            self._open_board(),
            lambda link, ids: link.cut.extend(ids),  # type: ignore[attr-defined]
        )
        self.meter.restore(self.now_ns, self.wall_s)

    def gate(self) -> Budgeting:
        """A relay's."""
        return Budgeting(
            *(self.settings, PRICES, self.board),
            monotonic_ns=lambda: self.now_ns,
            wall_ns=lambda: round(self.wall_s * NS),
        )

    def commit(self) -> None:
        """The ledger's transaction."""
        self.rows |= {(name, labels): data for name, labels, data in self.store.take_dirty()}

    def tick(self, seconds: float = 0.05) -> None:
        self.now_ns += round(seconds * NS)
        self.wall_s += seconds
        self.meter.tick(self.now_ns, self.wall_s, [self.link])  # type: ignore[list-item]

    def spent(self, name: str = "acme", values: tuple[str, ...] = ()) -> int:
        return self.word(SPENT, name, values)

    def word(self, word: int, name: str = "acme", values: tuple[str, ...] = ()) -> int:
        return self.board.words[self.board.base(self.board.find(digest_of(name, values), make=False)) + word]

    def held(self, name: str = "acme") -> int:
        return (self.word(TAKEN_WORST, name) - self.word(RELEASED_WORST, name)) & COUNT_MASK

    def gauge(self, metric: m.Metric, *labels: str) -> float | None:
        return self.store.gauge(metric, labels).value

    def count(self, metric: m.Metric, *labels: str) -> float:
        return self.store.counter(metric, labels).value


@pytest.fixture
def host(open_board: OpenBoard) -> Callable[..., Host]:
    def make(*rules: Any, per_gpu_hour: int | None = None, **changes: Any) -> Host:
        return Host(open_board, budgets(*rules, **changes), per_gpu_hour=per_gpu_hour)

    return make


MakeHost = Callable[..., Host]


# --- settling


def test_a_finished_request_is_spent_and_holds_nothing(host: MakeHost) -> None:
    """Its price is on the board in the same moment in which its hold is gone."""
    it = host()
    admitted = it.gate().admit(ACME, Wish(300, max_tokens=1000))
    assert isinstance(admitted, Admission)
    frame = opened(1, reserved=admitted.reserved)
    it.meter.opened(frame)
    it.tick()
    assert it.spent() == 0
    assert it.held() == 812 * 1_000 + 1000 * 10_000
    it.meter.record(finished(frame, completion=200))
    it.tick()
    assert it.spent() == 100 * 1_000 + 200 * 10_000
    assert it.held() == 0


def test_a_running_stream_turns_what_it_holds_into_spending(host: MakeHost) -> None:
    """Never counted twice: what is spent and what is held sum to the same, until it is over."""
    it = host()
    admitted = it.gate().admit(ACME, Wish(300, max_tokens=1000))
    assert isinstance(admitted, Admission)
    frame = opened(1, reserved=admitted.reserved)
    it.meter.opened(frame)
    it.link.stream(frame, completion=0)
    it.tick()
    whole = it.spent() + it.held()
    it.link.stream(frame, completion=300)
    it.tick(0.5)
    assert it.spent() == 100 * 1_000 + 300 * 10_000
    assert it.spent() + it.held() == whole
    it.meter.record(finished(frame, completion=310))
    it.tick()
    assert (it.spent(), it.held()) == (100 * 1_000 + 310 * 10_000, 0)


def test_near_its_limit_an_account_is_looked_at_with_each_tick(host: MakeHost) -> None:
    """Live counts are on the board after one tick of 50 ms; far from it, after half a second."""
    it = host(rule(limit="0.01"))
    frame = opened(1)
    it.meter.opened(frame)
    it.link.stream(frame, completion=600)
    it.tick(0.5)
    it.tick()
    it.link.stream(frame, completion=700)
    it.tick()
    assert it.spent() == 100 * 1_000 + 700 * 10_000


@pytest.mark.parametrize(
    ("unit", "spent"), [("tokens", 130), ("prompt_tokens", 100), ("completion_tokens", 30), ("dollars", 400_000)]
)
def test_what_is_spent_is_in_the_budgets_unit(host: MakeHost, unit: str, spent: int) -> None:
    """Tokens as the engine counted them, dollars by the record's price."""
    it = host(rule(unit=unit, limit=1000))
    it.meter.record(finished(opened(1), completion=30))
    it.tick()
    assert it.spent() == spent


def test_a_request_without_counts_costs_what_was_seen_of_it(host: MakeHost) -> None:
    """A stream that nobody counted to the end is not free."""
    it = host()
    frame = opened(1)
    it.meter.opened(frame)
    it.link.stream(frame, completion=50)
    it.tick(0.5)
    it.meter.record(finished(frame, None, None, outcome=Outcome.INTERRUPTED, error=ErrorType.RELAY_DIED))
    it.tick()
    assert it.spent() == 100 * 1_000 + 50 * 10_000


def late(frame: Open, prompt: int | None, completion: int | None, price: int | None) -> LateCount:
    """What the engine had counted for a request that was hung up on."""
    return LateCount(
        request_id=frame.request_id, wall_ns=frame.wall_ns, tenant=frame.tenant, model=frame.model, user=frame.user,
        feature=frame.feature, operation="chat", outcome=Outcome.CLIENT_ABORT, prompt_tokens=prompt,
        completion_tokens=completion, price_nanodollars=price,
    )  # fmt: skip


def test_hanging_up_on_a_plain_request_is_not_free(host: MakeHost) -> None:
    """What the engine counted for it is spent when that is known, in each budget in its unit."""
    it = host(rule(per=("user",)), rule(name="tokens", unit="tokens", limit=1000), rule(name="gpu", basis="gpu"))
    frame = opened(1, stream=False, user="u1")
    it.meter.opened(frame)
    it.meter.record(finished(frame, None, None, outcome=Outcome.CLIENT_ABORT))
    it.tick()
    assert it.spent(values=("u1",)) == it.spent("tokens") == 0
    it.meter.late(late(frame, 100, 50, 600_000))
    it.commit()
    it.tick()
    assert (it.spent(values=("u1",)), it.spent("tokens"), it.spent("gpu")) == (600_000, 150, 0)
    it.begin()
    assert (it.spent(values=("u1",)), it.spent("tokens")) == (600_000, 150)


def test_a_late_count_replaces_what_was_seen(host: MakeHost) -> None:
    """Never both."""
    it = host(rule(unit="tokens", limit=1000))
    frame = opened(1)
    it.meter.opened(frame)
    it.link.stream(frame, completion=50)
    it.tick(0.5)
    it.meter.record(finished(frame, None, None, outcome=Outcome.CLIENT_ABORT))
    it.tick()
    assert it.spent() == 150
    it.meter.late(late(frame, 100, 57, None))
    it.tick()
    assert it.spent() == 157


@pytest.mark.parametrize(("unit", "spent"), [("tokens", 157), ("dollars", 670_000)])
def test_a_late_count_adds_to_an_estimate(host: MakeHost, unit: str, spent: int) -> None:
    """Of a stream that was cut, what was seen is spent once, and what it came to more beside it."""
    it = host(rule(unit=unit, limit=1000))
    frame = opened(1)
    it.meter.opened(frame)
    it.link.stream(frame, completion=50)
    it.tick(0.5)
    cut = {"outcome": Outcome.CLIENT_ABORT, "token_source": TokenSource.CHUNK_ESTIMATE}
    it.meter.record(finished(frame, 50, None, **cut))
    it.meter.late(replace(late(frame, 100, 7, 670_000), estimated_tokens=50))
    it.tick()
    assert it.spent() == spent


def test_what_was_booked_before_is_not_spent_again(host: MakeHost) -> None:
    """A request that is told twice only gives back what it held."""
    it = host()
    admitted = it.gate().admit(ACME, Wish(300))
    assert isinstance(admitted, Admission)
    it.meter.opened(opened(1, reserved=admitted.reserved))
    it.meter.closed(opened(1).request_id)
    it.tick()
    assert (it.spent(), it.held()) == (0, 0)


def test_expectations_are_learnt_and_published(host: MakeHost) -> None:
    """After some requests the relay knows what they come to, and holds less."""
    it = host()
    gate = it.gate()
    before = gate.admit(ACME, Wish(300))
    for number in range(MIN_SEEN):
        it.meter.record(finished(opened(number), completion=100))
    it.tick()
    after = gate.admit(ACME, Wish(300))
    assert isinstance(before, Admission)
    assert isinstance(after, Admission)
    assert before.reserved[0][1] > 100 * after.reserved[0][1]
    assert before.reserved[0][2] == after.reserved[0][2]


# --- periods


def test_a_new_day_begins_with_nothing_spent(host: MakeHost) -> None:
    """Requests count on the day on which they arrived; those from before midnight hold nothing of the new day."""
    it = host(rule(period="day"))
    gate = it.gate()
    admitted = gate.admit(ACME, Wish(300))
    assert isinstance(admitted, Admission)
    late = opened(1, reserved=admitted.reserved)
    it.meter.opened(late)
    it.meter.record(finished(opened(2), completion=100))
    it.tick()
    assert it.spent() > 0
    it.tick(DAY_S / 2)  # midnight
    assert (it.spent(), it.held()) == (0, 0)
    it.meter.record(finished(late, completion=500))
    it.meter.record(finished(opened(3, at_s=it.wall_s), completion=1))
    it.tick()
    assert (it.spent(), it.held()) == (100 * 1_000 + 10_000, 0)


def test_a_request_of_the_new_day_counts_there_before_the_clock_has_ticked(host: MakeHost) -> None:
    """What arrived in the first moment of the day is not lost in the end of the old one."""
    it = host(rule(period="day"))
    it.meter.record(finished(opened(1), completion=100))
    it.tick()
    it.meter.record(finished(opened(2, at_s=NOW_S + DAY_S / 2), completion=3))
    it.tick(DAY_S / 2)
    assert it.spent() == 100 * 1_000 + 3 * 10_000


def test_a_rolling_budget_forgets_what_is_out_of_its_window(host: MakeHost) -> None:
    """Not before."""
    it = host(rule(period="rolling", window_s=3600))
    it.meter.record(finished(opened(1), completion=100))
    it.tick(3600)
    assert it.spent() == 1_100_000
    it.tick(120)
    assert it.spent() == 0


# --- the end of a collector


def test_what_was_committed_is_there_after_a_restart_and_what_was_not_is_told_again(host: MakeHost) -> None:
    """Spending is in the same transaction as the records: neither lost nor doubled."""
    it = host()
    it.meter.record(finished(opened(1), completion=100))
    it.commit()
    it.meter.record(finished(opened(2), completion=100))
    it.tick()
    it.begin()
    assert it.spent() == 1_100_000
    it.meter.record(finished(opened(2), completion=100))
    it.tick()
    assert it.spent() == 2_200_000


def test_holds_of_a_former_life_are_kept_until_relays_must_have_come_back(host: MakeHost) -> None:
    """Then just those of open requests are; what ended while nobody listened has been let go of."""
    it = host()
    gate = it.gate()
    frames = []
    for number in (1, 2):
        admitted = gate.admit(ACME, Wish(300, max_tokens=1000))
        assert isinstance(admitted, Admission)
        frames.append(opened(number, reserved=admitted.reserved))
        it.meter.opened(frames[-1])
    it.tick()
    one = it.held() // 2
    it.commit()
    it.begin()
    it.meter.opened(frames[0])
    it.tick()
    assert it.held() == 2 * one
    it.tick(FIRST_AUDIT_NS / NS + 1)
    it.tick()
    assert it.held() == one
    it.meter.record(finished(frames[0], completion=1))
    it.tick()
    assert it.held() == 0


def test_an_account_that_only_relays_know_is_taken_over_without_waiting(host: MakeHost) -> None:
    """It was made while we live: all that it holds we shall be told."""
    it = host()
    admitted = it.gate().admit(ACME, Wish(300))
    assert isinstance(admitted, Admission)
    assert not it.word(KNOWN)
    frame = opened(1, reserved=admitted.reserved)
    it.meter.opened(frame)
    it.meter.record(finished(frame, completion=1))
    it.tick()
    assert it.word(KNOWN)
    assert it.held() == 0


def test_decisions_of_relays_are_counted_once_also_across_a_restart(host: MakeHost) -> None:
    """They are written down with the counters that have them."""
    it = host(rule(limit="0.02"))
    gate = it.gate()
    found = [gate.admit(ACME, Wish(488, max_tokens=899)) for _ in range(5)]
    first = next(each for each in found if isinstance(each, Admission))
    it.meter.opened(opened(1, reserved=first.reserved))
    it.tick(2)
    it.commit()
    it.begin()
    it.tick(2)
    assert it.count(m.BUDGET_DECISIONS, "acme", "admitted") == 2
    assert it.count(m.BUDGET_DECISIONS, "acme", "rejected") == 3
    assert it.count(m.BUDGET_DECISIONS, "acme", "would_reject") == 0


def test_a_budget_that_is_no_longer_configured_is_forgotten(host: MakeHost) -> None:
    """A limit that was changed is not: spending goes on under the same name."""
    it = host(rule(), rule(name="day", period="day"))
    it.meter.record(finished(opened(1), completion=100))
    it.tick()
    it.meter.use(budgets(rule(limit=7)), PRICES, it.now_ns)
    assert it.spent() == 1_100_000
    it.meter.refresh()
    assert it.gauge(m.BUDGET_LIMIT_DOLLARS, "acme", "", "", "") == 7
    it.commit()
    it.settings = budgets(rule(limit=7), rule(name="day", period="day"))
    it.begin()
    it.tick()
    it.meter.refresh()
    assert it.spent() == 1_100_000
    assert it.gauge(m.BUDGET_SPENT_DOLLARS, "day", "", "", "") is None


# --- the machine's money, time and energy


@pytest.mark.parametrize(
    ("changes", "share", "spent"),
    [
        ({"basis": "gpu"}, {"gpu_nanodollars": 7_000_000}, 7_000_000),
        ({"unit": "joules", "limit": 1000}, {"energy_uj": 9_000_000}, 9_000_000),
        ({"unit": "gpu_seconds", "limit": 1000}, {"gpu_nanodollars": 1_000_000}, 1_800_000),  # 2 $ an hour
    ],
    ids=["gpu", "joules", "gpu_seconds"],
)
def test_what_the_machine_measures_replaces_the_estimate(
    host: MakeHost, changes: dict[str, Any], share: dict[str, int], spent: int
) -> None:
    """Some seconds after the request; from then on tokens are known to come to that."""
    it = host(rule(**changes), per_gpu_hour=2 * 10**9)
    for number in (1, 2):
        frame = opened(number)
        it.meter.opened(frame)
        it.meter.record(finished(frame, completion=75))
        it.tick()
        estimate = it.spent()
        it.meter.share(Share(request_id=frame.request_id, wall_ns=frame.wall_ns, tenant="acme", model="qwen", **share))
        it.tick()
        assert it.spent() == number * spent
        assert estimate == pytest.approx((number - 1) * 2 * spent, rel=1e-5)


def test_a_share_after_a_restart_finds_its_accounts(host: MakeHost) -> None:
    """It tells whose it is: tenant, user, feature and model."""
    it = host(
        rule(basis="gpu", per=("tenant", "model"), tenant="*"), rule(name="users", basis="gpu", per=("user",)),
        rule(name="batch", basis="gpu", feature="batch*"), rule(name="others", basis="gpu", feature="chat"),
        rule(name="tokens", unit="tokens", per=("user",)),
    )  # fmt: skip
    names = {"tenant": "acme", "model": "qwen", "user": "u1", "feature": "batch-1"}
    it.meter.share(Share(request_id="gone", wall_ns=NOW_S * NS, **names, gpu_nanodollars=5))
    it.tick()
    assert it.spent(values=("acme", "qwen")) == 5
    assert it.spent("users", ("u1",)) == 5
    assert it.spent("batch") == 5
    it.meter.refresh()
    assert it.gauge(m.BUDGET_SPENT_DOLLARS, "others", "", "", "") is None
    assert it.gauge(m.BUDGET_ACCOUNTS, "tokens", "ok") is None
    assert it.count(m.BUDGET_UNCHECKED, "unmeasured") == 0


def test_an_estimate_that_nothing_follows_is_dropped_and_counted(host: MakeHost) -> None:
    """Nobody is charged for ever for what was never measured."""
    it = host(rule(unit="joules", limit=1000))
    it.meter.record(finished(opened(1), completion=75))
    share = Share(request_id=opened(1).request_id, wall_ns=NOW_S * NS, tenant="acme", model="qwen", energy_uj=100)
    it.meter.share(share)
    it.meter.record(finished(opened(2), completion=75))
    it.tick()
    assert it.spent() == 200
    it.tick(accounts.PENDING_S + 1)
    assert it.spent() == 100
    assert it.count(m.BUDGET_UNCHECKED, "unmeasured") == 1


# --- enforcement


def test_streams_of_a_spent_budget_are_cut_once(host: MakeHost) -> None:
    """Those of others go on, plain replies too; a new connection of the relay is told again."""
    it = host(rule(limit="0.01", on_limit="cut"))
    frames = [opened(1), opened(2, tenant="other"), opened(3, stream=False)]
    for frame in frames:
        it.meter.opened(frame)
        it.link.stream(frame, completion=500)
    it.tick(0.5)
    assert it.link.cut == []
    it.link.stream(frames[0], completion=990)
    it.tick()
    it.tick()
    assert it.link.cut == [1]
    assert it.count(m.BUDGET_DECISIONS, "acme", "cut") == 1
    fresh = Link()
    fresh.entries, it.link = it.link.entries, fresh
    it.tick(0.5)
    assert it.link.cut == [1]


@pytest.mark.parametrize(("late_s", "relay_lag_s", "unspent"), [(0, 0, 1), (0.1, 0, 2), (0, 0.1, 2), (60, 0, 6)])
def test_who_looks_late_looks_further_ahead(host: MakeHost, late_s: float, relay_lag_s: float, unspent: int) -> None:
    """A stream of ten tokens a second, and a collector or a relay that others keep from their core."""
    it = host(rule(limit=1000, unit="tokens", on_limit="cut"))
    it.link.lag_ns = round(relay_lag_s * NS)
    frame = opened(1)
    it.meter.opened(frame)
    it.tick(0.5)
    for _ in range(200):  # the start is forgotten
        it.tick(TICK_S)
    for completion in range(900, 1001):
        it.link.stream(frame, completion, prompt=0, lasted_ns=completion * NS // 10)
        it.tick(TICK_S + late_s)
        if it.link.cut:
            break
    assert completion == 1001 - unspent


def test_a_budget_that_rejects_does_not_cut(host: MakeHost) -> None:
    """What runs goes on."""
    it = host(rule(limit="0.001"))
    frame = opened(1)
    it.meter.opened(frame)
    it.link.stream(frame, completion=500)
    it.tick(0.5)
    assert it.link.cut == []
    assert isinstance(it.gate().admit(ACME, Wish(1)), BudgetRefusal)


@pytest.mark.parametrize("on_limit", ["reject", "cut"])
def test_64_streams_at_a_nearly_spent_budget(host: MakeHost, on_limit: str) -> None:
    """Rejecting overshoots by what already ran at most; cutting not at all, nor does it waste a tenth of a second."""
    it = host(rule(limit="0.1", on_limit=on_limit))
    gate = it.gate()
    for number in range(MIN_SEEN):  # short ones: expectations are low
        it.meter.record(finished(opened(number), completion=10, prompt=10))
    it.tick()
    frames: list[Open] = []
    counts: dict[int, int] = {}
    longest = 0
    for beat in range(400):
        number = 1000 + beat
        admitted = gate.admit(ACME, Wish(30, max_tokens=300, stream=True))
        if isinstance(admitted, Admission) and len(frames) < 64:
            frame = opened(number, at_s=it.wall_s, reserved=admitted.reserved)
            it.meter.opened(frame)
            frames.append(frame)
            counts[number] = 0
        for frame in frames:
            if frame.id not in it.link.cut and counts[frame.id] < 300:
                counts[frame.id] += 2
                lasted_ns = round((it.wall_s - frame.wall_ns / NS) * NS)
                it.link.stream(frame, counts[frame.id], prompt=10, lasted_ns=lasted_ns)
        it.tick()
        limit = 10**8
        if it.spent() >= limit or it.link.cut:
            longest = longest or len(frames)
    spent = it.spent()
    if on_limit == "cut":
        assert limit - 64 * 4 * 10_000 <= spent <= limit
        assert len(set(it.link.cut)) == longest
    else:
        assert spent <= limit + longest * 300 * 10_000
        assert it.link.cut == []
    assert isinstance(gate.admit(ACME, Wish(30, max_tokens=300, stream=True)), BudgetRefusal)


def test_thresholds_are_told_once_a_period(host: MakeHost, caplog: pytest.LogCaptureFixture) -> None:
    """A line when one is reached, also if a restart lies between; anew in the next period."""
    it = host(rule(limit="0.002", period="day"))
    it.meter.record(finished(opened(1), completion=100))
    it.tick(2)
    it.tick(2)
    it.commit()
    it.begin()
    it.tick(2)
    assert [each for each in caplog.messages if "percent=50" in each] == ["budget_threshold budget=acme percent=50"]
    it.meter.refresh()
    assert it.gauge(m.BUDGET_THRESHOLD, "acme", "", "", "", "50") == 1
    assert it.gauge(m.BUDGET_THRESHOLD, "acme", "", "", "", "80") == 0
    it.tick(DAY_S)
    it.meter.record(finished(opened(2, at_s=it.wall_s), completion=200))
    it.tick(2)
    assert caplog.messages[-1] == "budget_threshold budget=acme percent=100"


# --- what is shown


def test_accounts_are_shown_with_their_names(host: MakeHost) -> None:
    """Limit, spending and reservations in the budget's unit; by the words of `per`, never by user."""
    it = host(
        rule(tenant="*", per=("tenant", "model")),
        rule(name="tokens", unit="tokens", limit=1000, per=("feature",)),
        rule(name="people", per=("user",)),
    )
    gate = it.gate()
    admitted = gate.admit(Names("acme", "u1", "chat", "qwen"), Wish(488, max_tokens=10))
    assert isinstance(admitted, Admission)
    it.meter.opened(opened(1, user="u1", feature="chat", reserved=admitted.reserved))
    it.meter.record(finished(opened(2, user="u1", feature="chat"), completion=100))
    it.tick(2)
    it.meter.refresh()
    account = ("acme", "acme", "", "qwen")
    assert it.gauge(m.BUDGET_LIMIT_DOLLARS, *account) == 5
    assert it.gauge(m.BUDGET_SPENT_DOLLARS, *account) == 0.0011
    assert it.gauge(m.BUDGET_PERIOD, "acme") in {days * 86_400 for days in (28, 29, 30, 31)}
    assert it.gauge(m.BUDGET_RESERVED, *account, "dollars", "high") == pytest.approx(0.0011)
    assert it.gauge(m.BUDGET_SPENT, "tokens", "", "chat", "", "tokens") == 200
    assert it.gauge(m.BUDGET_ACCOUNTS, "people", "ok") == 1
    shown = {labels for family in it.store.families() for labels in family.children if "people" in labels}
    assert not any("u1" in labels for labels in shown)


def test_of_many_accounts_the_fullest_are_shown(host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the bound says; one that is overtaken loses its series."""
    monkeypatch.setattr(exported, "MAX_SHOWN", 2)
    it = host(rule(tenant="*", per=("tenant",)))

    def spend(number: int, tenant: str, completion: int) -> set[str]:
        it.meter.record(finished(opened(number, tenant=tenant), completion=completion))
        it.meter.refresh()
        series = it.store.series(m.BUDGET_SPENT_DOLLARS)
        return {labels[1] for labels in series if it.gauge(m.BUDGET_SPENT_DOLLARS, *labels) is not None}

    assert spend(1, "a", 10) == {"a"}
    assert spend(2, "b", 20) == {"a", "b"}
    assert spend(3, "c", 30) == {"b", "c"}
    assert spend(4, "a", 90) == {"a", "c"}
    assert it.gauge(m.BUDGET_ACCOUNTS, "acme", "ok") == 3


def test_a_forecast_says_when_it_will_be_gone(host: MakeHost) -> None:
    """After some hours of steady spending: a time, and a share of the limit with a range."""
    it = host(rule(limit="0.05", period="day"))
    for hour in range(8):
        it.meter.record(finished(opened(hour, at_s=it.wall_s), completion=400))
        it.tick(3600)
    it.tick(61)
    it.meter.refresh()
    labels = ("acme", "", "", "")
    left = it.gauge(m.BUDGET_EXHAUSTION, *labels, "expected")
    low, expected, high = (it.gauge(m.BUDGET_FORECAST_RATIO, *labels, bound) for bound in ("low", "expected", "high"))
    assert left is None or left > 0
    assert low is not None
    assert expected is not None
    assert high is not None
    assert 0 < low <= expected <= high
    assert expected == pytest.approx(8 * 0.0041 / 0.05 * 1.5, rel=0.3)


def test_without_a_board_everything_is_counted_and_nothing_enforced() -> None:
    """A host on which it cannot be opened still has its reports."""
    store = MetricStore()
    meter = BudgetMeter(store, Tariff(PRICES), budgets(), None, lambda link, ids: None)
    meter.restore(0, NOW_S)
    frame = opened(1, reserved=((3, 10, 10, 10),))
    meter.opened(frame)
    meter.record(finished(frame, completion=100))
    meter.tick(NS, NOW_S + 1, [])
    meter.refresh()
    assert store.gauge(m.BUDGET_SPENT_DOLLARS, ("acme", "", "", "")).value == 0.0011


def test_accounts_that_nobody_uses_make_room(host: MakeHost) -> None:
    """A day after their last spending has left the window; they leave their slots, and their memos to the next."""
    it = host(rule(per=("user",), period="rolling", window_s=60), max_accounts=32)
    for number in range(32):
        it.meter.record(finished(opened(number, user=f"u{number}"), completion=1))
    it.meter.record(finished(opened(99, user="late"), completion=1))
    it.tick()
    assert it.board.find(digest_of("acme", ("late",)), make=False) == -1
    for _ in range(3):
        it.tick(IDLE_S / 2 + 60)
    it.meter.record(finished(opened(100, at_s=it.wall_s, user="late"), completion=1))
    it.tick()
    assert it.spent(values=("late",)) > 0
    it.commit()
    assert len(it.store.memos("budget")) == 32


# --- any order of everything


class Life(RuleBasedStateMachine):
    """Requests begin, stream and end; the ledger commits; the collector is killed at any point and told again."""

    @initialize()
    def begin(self) -> None:
        """A fresh host with a budget that has room for some of them."""
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "board"
        self.boards: list[Board] = []

        def open_board() -> Board:
            self.boards.append(Board(path, 64, lock_wait_s=5))
            return self.boards[-1]

        self.host = Host(open_board, budgets(rule(limit="0.05", reserve="worst")))
        self.gate = self.host.gate()
        self.number = 0
        self.running: dict[int, tuple[Open, int, int]] = {}  # frame, worst, tokens so far
        self.unacknowledged: list[RequestRecord] = []
        self.total = 0

    def teardown(self) -> None:
        for board in self.boards:
            board.close()
        self.folder.cleanup()

    @step(tokens=st.integers(1, 600))
    def admit(self, tokens: int) -> None:
        """A request comes."""
        admitted = self.gate.admit(ACME, Wish(100, max_tokens=tokens, stream=True))
        if isinstance(admitted, Admission):
            self.number += 1
            frame = opened(self.number, reserved=admitted.reserved)
            self.host.meter.opened(frame)
            self.running[self.number] = (frame, tokens, 0)

    @precondition(lambda self: self.running)
    @step(data=st.data(), share=st.floats(0, 1))
    def stream(self, data: st.DataObject, share: float) -> None:
        """Tokens come."""
        number = data.draw(st.sampled_from(sorted(self.running)))
        frame, most, so_far = self.running[number]
        tokens = max(so_far, int(most * share))
        self.running[number] = (frame, most, tokens)
        self.host.link.stream(frame, tokens, prompt=100)

    @precondition(lambda self: self.running)
    @step(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """One ends: at its worst."""
        number = data.draw(st.sampled_from(sorted(self.running)))
        frame, most, _ = self.running.pop(number)
        self.host.link.entries.pop(number, None)
        record = finished(frame, completion=most, prompt=100)
        self.total += record.price_nanodollars or 0
        self.unacknowledged.append(record)
        self.host.meter.record(record)

    @step(seconds=st.sampled_from([0.05, 0.6, 130.0]))
    def tick(self, seconds: float) -> None:
        """Time passes."""
        self.host.tick(seconds)

    @step()
    def commit(self) -> None:
        """The ledger has everything up to here, and relays are told so."""
        self.host.commit()
        self.unacknowledged.clear()

    @step()
    def kill(self) -> None:
        """The next collector has what was committed, and hears of the rest again before anything else."""
        self.host.begin()
        for frame, _, _ in self.running.values():
            self.host.meter.opened(frame)
        for record in self.unacknowledged:
            self.host.meter.record(record)

    @invariant()
    def nothing_is_lost_doubled_or_overspent(self) -> None:
        """What all requests cost is spent, or still held; and with what runs at its worst it is within the limit."""
        running = sum(612 * 1_000 + most * 10_000 for _, most, _ in self.running.values())
        assert self.total + running <= 50_000_000

    @step()
    def settle(self) -> None:
        """When all is published, the board says just what was booked and what runs."""
        self.host.tick()
        live = sum(
            100_000 + tokens * 10_000
            for frame, _, tokens in self.running.values()
            if frame.id in self.host.link.entries
        )
        self.host.tick(0.5)
        assert self.host.spent() == self.total + live if self.number else True


TestLife = Life.TestCase
TestLife.settings = hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None)
