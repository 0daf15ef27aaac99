"""What each key does."""

import pytest

from inferwatch.top.state import State, press
from inferwatch.top.views import VIEWS


def after(*keys: str, state: State | None = None) -> State:
    state = state or State()
    for key in keys:
        state = press(state, key)
    return state


def test_numbers_and_tab_choose_a_view() -> None:
    """In both directions, and round."""
    assert [after(str(place)).view for place in range(1, len(VIEWS) + 1)] == [view.name for view in VIEWS]
    assert after("TAB").view == VIEWS[1].name
    assert after("BACKTAB").view == VIEWS[-1].name
    assert after("8").view == after("0").view == VIEWS[0].name


def test_a_view_remembers_how_it_sorts() -> None:
    """Letters and < > choose the column, r the direction."""
    state = after("C", "r", "3", "T")
    assert state.column is not None
    assert state.column.title == "tok/s"
    assert state.backwards == {"tenants"}
    state = after("1", state=state)
    assert state.column is not None
    assert state.column.title == "hardware"
    assert after("r", state=state).backwards == frozenset()


@pytest.mark.parametrize(
    ("keys", "title"),
    [
        ((">",), "ttft p99"),
        (("F6",), "ttft p99"),
        (("<",), "failed/s"),
        (("N", "<"), "by prices"),
        (("P", ">"), "tenant"),
    ],
)
def test_the_next_column(keys: tuple[str, ...], title: str) -> None:
    """Round at the ends."""
    column = after(*keys).column
    assert column is not None
    assert column.title == title


def test_a_view_that_is_not_sorted_begins_at_an_end() -> None:
    """Errors come latest first, as they are sent."""
    assert after("6").column is None
    assert [after("6", key).column is VIEWS[5].columns[place] for key, place in ((">", 0), ("<", -1))] == [True, True]


@pytest.mark.parametrize(
    ("keys", "filter_", "typing"),
    [
        (("/", "a", "c", "q"), "", "acq"),
        (("/", "a", "c", "ENTER"), "ac", None),
        (("/", "a", "ENTER", "F4", "BACKSPACE", "b", "ENTER"), "b", None),
        (("/", "a", "ENTER", "/", "b", "ESC"), "a", None),
        (("/", "a", "ENTER", "ESC"), "", None),
        (("/", "TAB", "UP", "x", "BACKSPACE", "BACKSPACE"), "", ""),
        (("/", *"y" * 100, "ENTER"), "y" * 64, None),
    ],
)
def test_the_filter(keys: tuple[str, ...], filter_: str, typing: str | None) -> None:
    """While it is typed, letters are letters and no commands."""
    state = after(*keys)
    assert (state.filter, state.typing, state.ended) == (filter_, typing, False)


def test_pause_help_and_the_end() -> None:
    """Any key leaves the help; q ends from there, too."""
    assert after(" ").paused
    assert not after(" ", " ").paused
    for key in ("h", "?", "F1"):
        assert after(key).help
    assert not after("h", "3").help
    assert after("h", "3").view == "tenants"
    assert after("q").ended
    assert after("F10").ended
    assert after("h", "q").ended


def test_moving() -> None:
    """Not above the first row; what is below the last is for the page to say."""
    assert after("DOWN", "j", "UP").top == 1
    assert after("UP", "k", "PGUP").top == 0
    assert after("PGDN").top == 10
    assert after("END").top > 1_000_000
    assert after("END", "HOME").top == 0
    assert after("DOWN", "2").top == 0


def test_other_keys_do_nothing() -> None:
    """Nor fail."""
    assert after("z", "\u1234", "\u00b2", "F12", "X") == State()
