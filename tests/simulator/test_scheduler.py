"""Continuous batching: who is computed when, and that nothing is lost."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch_simulator.kv_cache import BLOCK_TOKENS
from inferwatch_simulator.scheduler import Limits, Scheduler, Sequence, Step


def limits(seqs: int = 8, batched: int = 64, blocks: int = 64) -> Limits:
    return Limits(
        max_num_seqs=seqs,
        max_num_batched_tokens=batched,
        kv_blocks=blocks,
        prefill_tokens_per_s=1000.0,
        decode_step_s_base=0.01,
        decode_step_s_per_seq=0.001,
    )


def sequence(key: int, prompt: int = 10, output: int = 5, prefix: tuple[int, ...] = (), at: float = 0.0) -> Sequence:
    own = tuple(hash((key, block)) for block in range(len(prefix), prompt // BLOCK_TOKENS))
    return Sequence(key, prompt, output, (*prefix, *own), at)


def run(scheduler: Scheduler, steps: int) -> list[Step]:
    """That many steps, each ending when it is due."""
    now = 0.0
    done = []
    for _ in range(steps):
        step = scheduler.schedule(now)
        now += step.duration_s
        scheduler.commit(step, now)
        done.append(step)
    return done


def test_prompt_yields_first_token_then_one_per_step() -> None:
    """The step that completes the prompt brings the first token, every later one another."""
    scheduler = Scheduler(limits())
    one = sequence(1, prompt=10, output=3)
    scheduler.submit(one)
    assert [(run(scheduler, 1), one.generated)[1] for _ in range(3)] == [1, 2, 3]
    assert scheduler.idle


def test_long_prompt_is_computed_in_chunks() -> None:
    """No step computes more tokens than its budget."""
    scheduler = Scheduler(limits(batched=64))
    scheduler.submit(sequence(1, prompt=150, output=1))
    assert [step.batched_tokens for step in run(scheduler, 3)] == [64, 64, 22]


def test_decodes_go_on_beside_a_long_prompt() -> None:
    """A running answer gets its token in every step while another prompt is computed."""
    scheduler = Scheduler(limits(batched=32))
    scheduler.submit(sequence(1, prompt=4, output=50))
    run(scheduler, 1)
    scheduler.submit(sequence(2, prompt=90, output=1))
    assert [[decode.key for decode in step.decodes] for step in run(scheduler, 3)] == [[1], [1], [1]]


def test_step_takes_longer_with_a_bigger_batch_and_with_prompts() -> None:
    """Duration is base, plus a share per decoded sequence, plus the prompt tokens at the prefill rate."""
    scheduler = Scheduler(limits())
    for key in range(3):
        scheduler.submit(sequence(key, prompt=10))
    prefill, decode = run(scheduler, 2)
    assert pytest.approx(0.01 + 30 / 1000) == prefill.duration_s
    assert pytest.approx(0.01 + 3 * 0.001) == decode.duration_s


def test_batch_is_limited() -> None:
    """More sequences than the batch holds wait until one has left."""
    scheduler = Scheduler(limits(seqs=2))
    for key in range(3):
        scheduler.submit(sequence(key, output=2))
    run(scheduler, 2)
    assert [waiting.key for waiting in scheduler.waiting] == [2]
    run(scheduler, 1)
    assert [running.key for running in scheduler.running] == [2]


def test_nobody_overtakes_one_that_does_not_fit() -> None:
    """A small request stays behind a big one that waits for memory."""
    scheduler = Scheduler(limits(blocks=8, batched=256))
    scheduler.submit(sequence(1, prompt=80, output=4))
    scheduler.submit(sequence(2, prompt=100, output=4))
    scheduler.submit(sequence(3, prompt=4, output=4))
    (step,) = run(scheduler, 1)
    assert [admitted.key for admitted in step.admitted] == [1]


def test_youngest_is_preempted_and_computed_anew() -> None:
    """When memory runs out the youngest leaves, comes back first, and keeps its tokens."""
    scheduler = Scheduler(limits(blocks=4, batched=256))
    old, young = sequence(1, prompt=30, output=20), sequence(2, prompt=30, output=20)
    scheduler.submit(old)
    scheduler.submit(young)
    steps = run(scheduler, 45)
    assert [victim.key for step in steps for victim in step.preempted] == [2]
    assert (young.preemptions, young.generated, old.preemptions, old.generated) == (1, 20, 0, 20)


def test_shared_prefix_is_not_computed_again() -> None:
    """The second prompt computes only what lies behind the common blocks; the last token is computed always."""
    scheduler = Scheduler(limits(batched=256))
    prefix = (101, 102)
    scheduler.submit(sequence(1, prompt=40, output=1, prefix=prefix))
    run(scheduler, 1)
    again, whole = sequence(2, prompt=40, output=1, prefix=prefix), sequence(3, prompt=32, output=1, prefix=prefix)
    scheduler.submit(again)
    scheduler.submit(whole)
    (step,) = run(scheduler, 1)
    assert {one.key: tokens for one, tokens in step.prefills} == {2: 8, 3: 16}
    assert (again.cached_tokens, whole.cached_tokens) == (32, 16)


def test_equal_prompts_admitted_together_share() -> None:
    """The n answers of one request compute their prompt once."""
    scheduler = Scheduler(limits(batched=256))
    twins = [sequence(key, prompt=40, output=1, prefix=(7, 8)) for key in (1, 2)]
    for twin in twins:
        scheduler.submit(twin)
    run(scheduler, 1)
    assert [twin.cached_tokens for twin in twins] == [0, 32]


def test_abort_frees_at_once_also_in_mid_step() -> None:
    """An aborted sequence holds nothing and gets nothing from the step under way."""
    scheduler = Scheduler(limits())
    gone, stays = sequence(1), sequence(2)
    scheduler.submit(gone)
    scheduler.submit(stays)
    step = scheduler.schedule(0.0)

    scheduler.abort(gone)

    assert scheduler.kv.used == 1
    assert [one.key for one in scheduler.commit(step, 0.1)] == [2]
    scheduler.abort(gone)
    assert [one.key for one in scheduler.running] == [2]


def test_waiting_sequence_can_be_aborted() -> None:
    """It leaves the queue and the next one moves up."""
    scheduler = Scheduler(limits(seqs=1))
    for key in (1, 2, 3):
        scheduler.submit(sequence(key, output=1))
    scheduler.abort(scheduler.waiting[1])
    assert [[one.key for one in step.admitted] for step in run(scheduler, 2)] == [[1], [3]]


def test_sequence_that_can_never_fit_is_refused() -> None:
    """Waiting for it would block the queue for ever."""
    with pytest.raises(ValueError, match="80 tokens, more than the 64 that fit"):
        Scheduler(limits(blocks=4)).submit(sequence(1, prompt=60, output=20))


def test_idle_engine_has_an_empty_step() -> None:
    """Nothing to do takes no time."""
    assert (Scheduler(limits()).schedule(1.0).duration_s, Scheduler(limits()).schedule(1.0).batched_tokens) == (0.0, 0)


class Arrival(NamedTuple):
    prompt: int
    output: int
    prefix: int
    abort_after: int | None


_ARRIVALS = st.lists(
    st.builds(
        Arrival,
        st.integers(1, 120),
        st.integers(1, 30),
        st.integers(0, 3),
        st.one_of(st.none(), st.integers(0, 20)),
    ),
    min_size=1,
    max_size=15,
)


@settings(deadline=None)
@given(_ARRIVALS, st.integers(1, 6), st.sampled_from([16, 50, 512]), st.integers(10, 40))
def test_invariants_hold_under_any_load(arrivals: list[Arrival], seqs: int, batched: int, blocks: int) -> None:
    """Tokens are conserved, memory is never exceeded, admission is in order, and at the end nothing is held."""
    scheduler = Scheduler(limits(seqs=seqs, batched=batched, blocks=blocks))
    live = [
        (sequence(key, one.prompt, one.output, tuple(range(min(one.prefix, one.prompt // BLOCK_TOKENS)))), one)
        for key, one in enumerate(arrivals)
    ]
    for one, _ in live:
        scheduler.submit(one)
    tokens = dict.fromkeys(range(len(live)), 0)
    first_admissions: list[int] = []
    aborted: set[int] = set()
    now = 0.0
    for number in range(5000):
        if scheduler.idle:
            break
        step = scheduler.schedule(now)
        assert step.batched_tokens > 0, "work left, but none scheduled"
        assert step.batched_tokens <= batched
        assert len(scheduler.running) <= seqs
        assert scheduler.kv.used <= blocks
        first_admissions += [one.key for one in step.admitted if one.preemptions == 0]
        for one, arrival in live:
            if arrival.abort_after == number:
                scheduler.abort(one)
                aborted.add(one.key)
        now += step.duration_s
        got = scheduler.commit(step, now)
        assert len(got) == len({one.key for one in got})
        for one in got:
            assert one.key not in aborted or one.finished
            tokens[one.key] += 1

    assert scheduler.idle
    assert first_admissions == sorted(first_admissions)
    for one, arrival in live:
        assert tokens[one.key] == one.generated
        assert one.finished or one.key in aborted
        if one.finished:
            assert arrival.output == one.generated
    assert scheduler.kv.used == 0
