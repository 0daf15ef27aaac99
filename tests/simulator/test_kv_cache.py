"""The pool of memory blocks."""

from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch_simulator.kv_cache import Holding, KvCache, blocks_for


def test_blocks_are_rounded_up() -> None:
    """A block begun is a block taken."""
    assert [blocks_for(tokens) for tokens in (0, 1, 16, 17)] == [0, 1, 1, 2]


def test_grow_takes_all_or_nothing() -> None:
    """A holding that does not fit leaves the pool as it was."""
    kv = KvCache(4)
    holding = Holding()
    assert kv.grow(holding, 3)

    assert not kv.grow(holding, 5)
    assert (holding.blocks, kv.free) == (3, 1)


def test_released_prefix_answers_look_ups_until_its_blocks_are_needed() -> None:
    """Retained blocks are free, yet remembered, oldest tails first out."""
    kv = KvCache(3)
    first = Holding()
    kv.grow(first, 3)
    kv.share(first, [11, 12, 13])
    kv.release(first)
    assert (kv.used, kv.longest_prefix([11, 12, 13])) == (0, 3)

    kv.grow(Holding(), 1)

    assert kv.longest_prefix([11, 12, 13]) == 2


def test_shared_prefix_is_held_once() -> None:
    """Two sequences of one prompt count the common blocks once, and each gives back only its own share."""
    kv = KvCache(8)
    first, second = Holding(), Holding()
    kv.grow(first, 2)
    kv.share(first, [1, 2])
    kv.claim_prefix(second, [1, 2])
    kv.grow(second, 3)
    assert kv.used == 3

    kv.release(first)
    assert kv.used == 3
    kv.release(second)
    assert kv.used == 0


_PROMPTS = st.lists(st.integers(0, 3), max_size=6)


@settings(deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(st.booleans(), _PROMPTS, st.integers(0, 5)), max_size=40))
def test_pool_never_exceeds_its_capacity(capacity: int, actions: list[tuple[bool, list[int], int]]) -> None:
    """Whatever is claimed, grown, shared and released: used and retained blocks fit, and all comes back."""
    kv = KvCache(capacity)
    held: list[Holding] = []
    for begin, digits, extra in actions:
        if begin:
            hashes = [hash(tuple(digits[: end + 1])) for end in range(len(digits))]
            hit = hashes[: kv.longest_prefix(hashes)]
            if len(hashes) + extra - len(hit) + kv.unclaimed(hit) > kv.free:
                continue
            holding = Holding()
            kv.claim_prefix(holding, hit)
            assert kv.grow(holding, len(hashes) + extra)
            kv.share(holding, hashes)
            held.append(holding)
        elif held:
            kv.release(held.pop(extra % len(held)))
        assert 0 <= kv.used <= capacity
        assert kv.used + len(kv._retained) <= capacity

    for holding in held:
        kv.release(holding)
    assert (0, capacity) == (kv.used, kv.free)
