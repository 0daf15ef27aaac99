"""The meter on a host: who pays what, what is idle, what survives."""

from decimal import Decimal
from typing import Any

import pytest

from inferwatch.record import ErrorType, Outcome
from inferwatch.settings.cost import Attribution, Cost
from inferwatch.settings.energy import Energy
from inferwatch_collectors import metrics as m
from inferwatch_collectors.attribution import meter as meter_module
from inferwatch_collectors.exposition import Exposition
from inferwatch_collectors.gpu.base import EnergyReading

MILLION = 1_000_000  # nano-dollars of a second at 3.60 dollars an hour


def cuts(host: Any) -> dict[str, int]:
    family = next(each for each in host.store.families() if each.metric is m.ATTRIBUTION_CUT)
    return {labels[0]: series.value for labels, series in family.children.items() if series.value}


# --- known examples


@pytest.mark.parametrize("idle", ["busy", "capacity"])
def test_a_known_example_of_dollars_per_million_tokens(host: Any, idle: Any) -> None:
    """3.50 $/h, 3,000 tokens/s at 70 % utilisation: 0.46 $ per million tokens, of which 30 % are idle.

    Busy: 3,000 tokens/s for seven of ten seconds. Capacity: 2,100 tokens/s all the time.
    """
    if idle == "busy":
        jobs = [
            host.Job(f"r{n}", 10_000 * n, 10_000 * n + 7_000, prompt=0, completion=21_000, tenant="acme")
            for n in range(6)
        ]
    else:
        jobs = [host.Job("r", 0, 60_000, prompt=0, completion=126_000)]
    attribution = Attribution(idle=idle, peak_tokens_per_second=Decimal(3_000))
    machine = host.Host(jobs, cost=host.rented("3.50"), attribution=attribution).run(62_000)
    while machine.meter.undivided[0] > machine.bill(2_500):
        machine.run(machine.now_ms + 500)
    charged = machine.charged_dollars
    idle_of_minute = machine.bill(60_000) - charged
    assert round((charged + idle_of_minute) / 1e9 / 126_000 * 1e6, 2) == 0.46
    assert idle_of_minute / (charged + idle_of_minute) == pytest.approx(0.3, abs=1e-6)
    assert charged / 1e9 / 126_000 * 1e6 == pytest.approx(0.46296 * 0.7, abs=1e-4)


def test_tokens_weigh_by_kind(host: Any) -> None:
    """A prompt of 400 weighs as much as 100 completion tokens, and 4,000 cached ones as much."""
    jobs = [
        host.Job("prompt", 0, 4_000, prompt=400, completion=0),
        host.Job("completion", 0, 4_000, prompt=0, completion=100),
        host.Job("cached", 0, 4_000, prompt=4_000, cached=4_000, completion=0),
    ]
    machine = host.Host(jobs, cost=host.rented()).settle()
    assert [machine.dollars(job.name) for job in jobs] == pytest.approx([4 * MILLION / 3] * 3, abs=8)


def test_a_stream_pays_its_prompt_before_its_first_token(host: Any) -> None:
    """It reads its prompt alone for two seconds; then it shares three seconds, token by token."""
    reading = host.stream("reading", 0, 2_000, 5_000, prompt=1_000, completion=300)
    other = host.stream("other", 1_990, 2_000, 5_000, prompt=0, completion=900)
    machine = host.Host([reading, other], cost=host.rented()).settle()
    assert machine.dollars("reading") == pytest.approx(2 * MILLION + 3 * MILLION / 4, rel=0.02)
    assert machine.dollars("other") == pytest.approx(3 * MILLION * 3 / 4, rel=0.02)


def test_labels_and_sums(host: Any) -> None:
    """The sum by tenant is the sum by model is the sum of all; idle stands apart."""
    jobs = [
        host.Job("a", 0, 3_000, tenant="acme"),
        host.Job("b", 1_000, 4_000, tenant="beta", model="llama"),
        host.Job("c", 1_500, 1_900, tenant="beta", operation="embeddings", completion=None),
    ]
    machine = host.Host(jobs, cost=host.rented()).settle()
    by_tenant = {name: machine.total(m.COST_DOLLARS, tenant=name) for name in ("acme", "beta")}
    assert sum(by_tenant.values()) == machine.charged_dollars == 4 * MILLION
    assert by_tenant["beta"] == machine.dollars("b") + machine.dollars("c")
    assert machine.total(m.COST_DOLLARS, model="llama") == machine.dollars("b")
    assert machine.charged_dollars + machine.idle_dollars + machine.meter.undivided[0] == machine.bill(machine.now_ms)


def test_dollars_are_exported_as_dollars(host: Any) -> None:
    """The store counts whole nano-dollars; the exposition divides."""
    machine = host.Host([host.Job("a", 0, 3_000)], cost=host.rented()).settle()
    text = Exposition(machine.store).render()[0].decode()
    line = 'inferwatch_cost_dollars_total{basis="gpu",model="qwen",operation="chat",tenant="acme"}'
    assert f"{line} 0.003\n" in text


# --- what is not known


def test_without_a_price_there_are_no_dollars(host: Any) -> None:
    """Nothing configured, nothing measured: no series, no shares."""
    machine = host.Host([host.Job("a", 0, 3_000)]).settle()
    assert machine.shares == []
    assert "cost_dollars" not in Exposition(machine.store).render()[0].decode()
    assert machine.rows == {}


def test_energy_without_a_price(host: Any) -> None:
    """Joules are attributed, and dollars stay unknown."""
    machine = host.Host([host.Job("a", 2_000, 5_000)])
    machine.watts = [(0, 400)]
    machine.settle()
    share = machine.share("a")
    assert (share.gpu_nanodollars, share.energy_uj) == (None, 3 * 400 * 10**6)
    text = Exposition(machine.store).render()[0].decode()
    assert 'inferwatch_energy_joules_total{model="qwen",operation="chat",tenant="acme"} 1200.0' in text
    assert "\ninferwatch_cost_dollars" not in text
    assert "\ninferwatch_idle_cost_dollars" not in text
    assert "co2e" not in text


def test_a_price_without_energy(host: Any) -> None:
    """Dollars are attributed, and joules stay unknown."""
    machine = host.Host([host.Job("a", 0, 3_000)], cost=host.rented()).settle()
    assert machine.share("a").energy_uj is None
    assert "\ninferwatch_idle_energy_joules" not in Exposition(machine.store).render()[0].decode()


def test_routes_that_generate_nothing_have_no_share(host: Any) -> None:
    """Whether they kept the GPU busy is not known; their time is nobody's."""
    machine = host.Host([host.Job("models", 0, 3_000, operation="other")], cost=host.rented()).run(60_000)
    assert [share for share in machine.shares if share.request_id] == []
    assert machine.charged_dollars == 0


def test_what_was_refused_is_charged_nothing(host: Any) -> None:
    """A share of 0, since that is known."""
    refused = host.Job(
        "r", 0, 3_000, prompt=None, completion=None, outcome=Outcome.REJECTED, error=ErrorType.ENGINE_4XX
    )
    machine = host.Host([refused], cost=host.rented()).settle()
    assert machine.dollars("r") == 0


def test_a_plain_reply_that_was_hung_up_on_pays_by_its_time(host: Any) -> None:
    """Beside one that did know its tokens it pays the same for the same time; it is counted."""
    known = host.Job("known", 0, 4_000)
    lost = host.Job("lost", 0, 4_000, prompt=None, completion=None, outcome=Outcome.CLIENT_ABORT)
    machine = host.Host([known, lost], cost=host.rented()).settle()
    assert machine.dollars("known") == machine.dollars("lost") == 2 * MILLION
    assert cuts(machine) == {"unknown": 1}


# --- time and bounds


def test_a_long_plain_reply_is_waited_for(host: Any) -> None:
    """Its neighbours' shares come when its tokens are known, and are those that its tokens leave them."""
    plain = host.Job("plain", 0, 100_000, prompt=0, completion=10_000)
    short = host.Job("short", 50_000, 60_000, prompt=0, completion=3_000)
    machine = host.Host([plain, short], cost=host.rented()).run(90_000)
    assert machine.charged_dollars == 0
    machine.settle()
    assert machine.dollars("short") == pytest.approx(10 * MILLION * 300 / 400, abs=20)
    assert machine.dollars("plain") == 100 * MILLION - machine.dollars("short")
    assert cuts(machine) == {}


def test_beyond_the_horizon_time_is_charged_instead(host: Any) -> None:
    """After two minutes a plain reply pays by its time, like the average of the others; its late tokens pay the rest."""
    plain = host.Job("plain", 0, 200_000, prompt=0, completion=2_000)
    streamed = host.stream("streamed", 0, 1, 200_000, prompt=0, completion=20_000)
    machine = host.Host([plain, streamed], cost=host.rented()).run(150_000)
    assert machine.total(m.COST_DOLLARS) == pytest.approx(30 * MILLION, abs=MILLION)
    machine.settle()
    by_time, by_tokens = 200 - 120, 120
    assert machine.dollars("plain") == pytest.approx((by_time / 2 + by_tokens / 11) * MILLION, rel=0.02)
    assert machine.dollars("plain") + machine.dollars("streamed") == 200 * MILLION
    assert cuts(machine)["horizon"] == pytest.approx(by_time, abs=2)


def test_a_stream_that_counts_its_prompt_at_the_end(host: Any) -> None:
    """The seconds before its first token wait; the ones after are held up behind them, and all comes out right."""
    late = host.stream("late", 0, 2_000, 30_000, prompt=1_000, completion=280, late_prompt=True)
    machine = host.Host([late], cost=host.rented()).run(29_000)
    assert machine.charged_dollars == 0
    machine.settle()
    assert machine.dollars("late") == 30 * MILLION


def test_a_stream_that_stands_still_does_not_hold_the_others_up_for_long(host: Any) -> None:
    """Ten seconds; what it makes later counts then."""
    still = host.stream("still", 0, 1_000, 60_000, prompt=0, completion=None)
    machine = host.Host([still], cost=host.rented()).run(30_000)
    assert machine.idle_dollars >= 18 * MILLION


def test_too_much_work_is_divided_early(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: the oldest seconds are divided without waiting, and counted."""
    monkeypatch.setattr(meter_module, "MAX_ENTRIES", 50)
    streams = [host.stream(f"s{n}", 0, 1, 40_000, prompt=0, completion=4_000) for n in range(10)]
    machine = host.Host([host.Job("plain", 0, 40_000), *streams], cost=host.rented()).settle()
    assert cuts(machine)["memory"] > 20
    assert machine.charged_dollars == 40 * MILLION


def test_requests_beyond_the_bound_are_not_followed(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted, and the others pay."""
    monkeypatch.setattr(meter_module, "MAX_ACCOUNTS", 2)
    machine = host.Host([host.Job(f"r{n}", 0, 400) for n in range(5)], cost=host.rented()).settle()
    assert cuts(machine) == {"accounts": 3}
    assert len([share for share in machine.shares if share.request_id]) == 2


def test_more_ends_than_fit_between_two_ticks_are_cut(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded and counted."""
    monkeypatch.setattr(meter_module, "MAX_ENDED", 3)
    machine = host.Host([host.Job(f"r{n}", 0, 400) for n in range(5)], cost=host.rented()).settle()
    assert cuts(machine) == {"accounts": 2}


def test_a_request_told_of_after_its_time_is_late(host: Any) -> None:
    """From a spool file, say: its seconds are divided, so it is charged nothing, and is counted."""
    machine = host.Host(cost=host.rented()).run(30_000)
    machine.meter.closed(machine.record(host.Job("late", 3_000, 9_000)))
    machine.run(40_000)
    assert machine.dollars("late") == 0
    assert cuts(machine) == {"late": 1}


def test_work_that_waited_is_divided_bit_by_bit(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a long reply ends, its two minutes are not divided in one go on the event loop."""
    monkeypatch.setattr(meter_module, "MAX_STEPS", 5)
    machine = host.Host([host.Job(f"r{n}", 0, 60_000) for n in range(5)], cost=host.rented()).run(59_500)
    assert machine.charged_dollars == 0
    for ticks in range(1, 5):
        machine.run(59_500 + 500 * ticks)
        assert machine.charged_dollars == 3 * ticks * MILLION
    machine.settle()
    assert machine.charged_dollars == 60 * MILLION


def test_ticks_are_a_second_apart(host: Any) -> None:
    """Called twice as often it does its work once; before an exit it does it in any case."""
    machine = host.Host(cost=host.rented())
    for now_ms, billed in ((500, 0), (1_000, MILLION), (1_500, MILLION)):
        machine.now_ms = now_ms
        machine.meter.tick(machine.now_ns, machine.wall_ns, [])
        assert machine.meter.undivided[0] == billed
    machine.meter.tick(machine.now_ns, machine.wall_ns, [], force=True)
    assert machine.meter.undivided[0] == 1.5 * MILLION


# --- idle


def test_idle_is_a_share_a_minute(host: Any) -> None:
    """Of nobody; the minutes sum to the idle counter but for the one that is not over."""
    machine = host.Host([host.Job("a", 90_000, 91_000)], cost=host.rented()).run(240_000)
    idle = [share for share in machine.shares if not share.request_id]
    assert all(share.wall_ns % (60 * 10**9) == 0 and not share.tenant for share in idle)
    assert [share.gpu_nanodollars for share in idle[1:]] == [59 * MILLION, 60 * MILLION, 60 * MILLION][: len(idle) - 1]
    assert all(share.energy_uj is None for share in idle)


def test_idle_energy(host: Any) -> None:
    """A GPU that draws 60 W while nobody asks."""
    machine = host.Host()
    machine.watts = [(0, 60)]
    machine.run(62_500)
    assert machine.total(m.IDLE_ENERGY_JOULES) == pytest.approx(60 * 60 * 10**6, rel=0.02)
    machine.run(125_000)
    assert machine.shares[-1].energy_uj == pytest.approx(3600 * 10**6, rel=0.5)


# --- energy and carbon


def test_energy_is_divided_like_cost(host: Any) -> None:
    """The same weights: joules per token of a second are the same for all that shared it."""
    jobs = [
        host.Job("a", 1_000, 5_000, completion=300, prompt=0),
        host.Job("b", 1_000, 5_000, completion=100, prompt=0),
    ]
    machine = host.Host(jobs, cost=host.rented())
    machine.watts = [(0, 100), (1_000, 700), (5_000, 100)]
    machine.settle()
    assert machine.share("a").energy_uj == 3 * 700 * 10**6
    assert machine.share("b").energy_uj == 700 * 10**6
    assert machine.dollars("a") == 3 * machine.dollars("b")


def test_measured_electricity_is_part_of_the_bill(host: Any) -> None:
    """1 kWh is 3.6 MJ: at 0.36 $ per kWh a joule is 100 nano-dollars."""
    cost = Cost(dollars_per_kwh=Decimal("0.36"))
    machine = host.Host([host.Job("a", 1_000, 4_000)], cost=cost)
    machine.watts = [(0, 500)]
    machine.settle()
    assert machine.dollars("a") == 3 * 500 * 100
    assert machine.share("a").energy_uj == 3 * 500 * 10**6


def test_slow_samples_are_waited_for(host: Any) -> None:
    """A sampler that reads every ten seconds still gives each second its energy."""
    machine = host.Host([host.Job("a", 1_000, 4_000)])
    machine.meter.energy([EnergyReading("GPU-1", machine.now_ns, 0, None)])
    machine.run(9_500)
    assert machine.total(m.ENERGY_JOULES) == 0
    machine.now_ms = 10_000
    machine.meter.energy([EnergyReading("GPU-1", machine.now_ns, 5_000_000, None)])
    machine.run(30_000)
    assert machine.share("a").energy_uj == 3 * 500 * 10**6


def test_carbon_by_the_hour(host: Any) -> None:
    """3.6 MJ at PUE 1.25 are 1.25 kWh; at 400 g/kWh 500 g, whoever used them."""
    energy = Energy(grid_gco2e_per_kwh=400.0, pue=Decimal("1.25"))
    machine = host.Host([host.Job("a", 100_000, 400_000)], energy=energy)
    machine.watts = [(0, 6_000)]
    machine.run(600_000)
    while machine.total(m.ENERGY_JOULES) + machine.total(m.IDLE_ENERGY_JOULES) < 3_600_000 * 10**6:
        machine.run(machine.now_ms + 1_000)
    joules = machine.total(m.ENERGY_JOULES) + machine.total(m.IDLE_ENERGY_JOULES)
    micrograms = machine.total(m.CO2E_GRAMS) + machine.total(m.IDLE_CO2E_GRAMS)
    assert micrograms == joules * 500 // 3_600_000
    assert machine.total(m.CO2E_GRAMS) == pytest.approx(300 * 6_000 * 500 / 3.6, rel=1e-6)


def test_a_broken_counter_is_counted(host: Any) -> None:
    """Years of energy in a second are nobody's."""
    machine = host.Host([host.Job("a", 1_000, 4_000)])
    machine.watts = [(0, 100)]
    machine.run(2_000)
    machine.meter.energy([EnergyReading("GPU-1", machine.now_ns + 1, 10**15, None)])
    machine.run(20_000)
    assert cuts(machine)["energy_reading"] == 2
    assert machine.total(m.ENERGY_JOULES) < 500 * 10**6


# --- the end of a life


def test_a_short_absence_is_billed(host: Any) -> None:
    """The collector was restarted: the machine was paid for meanwhile, by whoever was served."""
    machine = host.Host([host.stream("a", 0, 1_000, 60_000, prompt=0, completion=6_000)], cost=host.rented())
    machine.run(20_000).crash(away_ms=20_000, lose=False)
    machine.settle()
    assert machine.dollars("a") == pytest.approx(60 * MILLION, abs=2 * MILLION)
    assert machine.total(m.UNOBSERVED_SECONDS) == 0


def test_after_an_absence_the_relays_are_waited_for(host: Any) -> None:
    """They come back within seconds and tell what went on meanwhile: it is charged, not idle."""
    machine = host.Host(cost=host.rented()).run(10_000)
    machine.crash(away_ms=10_000, lose=False)
    machine.run(23_000)
    machine.jobs = [host.Job("meanwhile", 11_000, 21_500)]
    machine.settle()
    assert machine.dollars("meanwhile") == 10.5 * MILLION
    assert cuts(machine) == {}


def test_a_long_absence_is_not_billed_but_counted(host: Any) -> None:
    """Somebody switched Inferwatch off for ten minutes."""
    machine = host.Host([host.Job("a", 0, 5_000)], cost=host.rented())
    machine.run(20_000).crash(away_ms=600_000, lose=False)
    machine.run(640_000)
    billed = machine.charged_dollars + machine.idle_dollars + machine.meter.undivided[0]
    assert billed == machine.bill(20_000 + 20_000 - 500)
    assert machine.total(m.UNOBSERVED_SECONDS) == (600_500) * host.MS


def test_energy_of_an_absence(host: Any) -> None:
    """Of a short one the counter tells; of a long one nobody knows who used it."""
    for away_ms, seconds in ((30_000, 50), (90_000, 20)):
        machine = host.Host()
        machine.watts = [(0, 200)]
        machine.run(10_500).crash(away_ms=away_ms, lose=False)
        machine.run(machine.now_ms + 10_000)
        counted = machine.total(m.IDLE_ENERGY_JOULES) + machine.meter.undivided[1]
        assert counted == pytest.approx(seconds * 200 * 10**6, rel=0.06)


@pytest.mark.parametrize(("away_ms", "unobserved_s"), [(20_000, 0), (300_000, 300)])
def test_another_boot(host: Any, away_ms: int, unobserved_s: int) -> None:
    """The host was restarted, its clock began anew: what was open ends, what was billed stays, and it goes on."""
    jobs = [host.Job("done", 0, 19_000), host.Job("open", 0, 10**7)]
    machine = host.Host(jobs, cost=host.rented()).run(20_000)
    machine.commit()
    del machine.shares[machine.committed[0] :]
    machine.jobs = []
    machine.wall_shift_ns = (away_ms + 15_000) * host.MS
    machine.now_ms = 5_000  # of the new clock: 15 s less
    machine._start()
    assert {share.request_id for share in machine.shares if share.request_id} == {"done", "open"}
    machine.run(30_000)
    billed = machine.charged_dollars + machine.idle_dollars + machine.meter.undivided[0]
    assert billed == machine.bill(20_000 + 25_000 + (0 if unobserved_s else away_ms))
    assert machine.total(m.UNOBSERVED_SECONDS) == unobserved_s * 10**9


def test_an_open_request_that_nobody_ends(host: Any) -> None:
    """Collector and relay died together: it ends where it was last seen, and has its share."""
    machine = host.Host([host.Job("gone", 0, 10**7)], cost=host.rented()).run(20_000)
    machine.jobs = []
    machine.crash(lose=False)
    machine.run(200_000)
    assert machine.dollars("gone") == pytest.approx(20 * MILLION, abs=MILLION)
    assert cuts(machine)["abandoned"] == 1


def test_ends_between_two_ticks_survive_with_their_record(host: Any) -> None:
    """The record is committed, so no relay tells the request again: its end must not wait for the next tick."""
    machine = host.Host([host.Job(f"r{n}", 0, 3_200, completion=10) for n in range(150)], cost=host.rented())
    machine.run(3_000)
    machine.now_ms = 3_300
    machine.deliver()
    machine.crash(lose=False)
    machine.run(30_000)
    assert len({share.request_id for share in machine.shares if share.request_id}) == 150
    assert cuts(machine) == {}


def test_a_memory_that_cannot_be_read_is_begun_anew(host: Any) -> None:
    """A newer version wrote it, or a disk did: start from now, rather than not at all."""
    machine = host.Host([host.Job("a", 0, 3_000)], cost=host.rented()).run(10_000)
    for name in ("attribution", "attribution_accounts"):
        machine.store.memo(name).set(b"\xc1nonsense")
    machine.crash(lose=False)
    machine.run(20_000)
    assert machine.meter.undivided[0] <= 3 * MILLION
    assert machine.charged_dollars == 3 * MILLION


def test_a_price_that_was_taken_out(host: Any) -> None:
    """What waited to be divided is dropped with the question."""
    machine = host.Host([host.Job("a", 0, 30_000)], cost=host.rented()).run(10_000)
    machine.settings["cost"] = Cost()
    machine.crash(lose=False)
    machine.run(60_000)
    assert machine.charged_dollars == 0
    assert machine.meter.undivided == (0, 0)


# --- learning


def test_learned_weights_are_shown_and_used(host: Any) -> None:
    """Not before five busy minutes; then a prompt token is charged by what it was seen to take."""
    jobs = []
    for n in range(200):  # a completion token takes 10 ms, a prompt token 1 ms
        jobs.append(host.stream(f"p{n}", 3_000 * n, 3_000 * n + 900, 3_000 * n + 950, prompt=900, completion=5))
        jobs.append(
            host.stream(f"d{n}", 3_000 * n + 1_000, 3_000 * n + 1_010, 3_000 * n + 2_900, prompt=10, completion=190)
        )
    machine = host.Host(jobs, cost=host.rented(), attribution=Attribution(weights="learned")).run(200_000)
    assert machine.store.gauge(m.LEARNED_PREFILL_WEIGHT).value is None
    machine.run(600_000)
    assert machine.store.gauge(m.LEARNED_PREFILL_WEIGHT).value == pytest.approx(0.1, rel=0.2)
