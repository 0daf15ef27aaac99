"""fence: a fault is counted and told once, and never quotes what it was about."""

import pytest

from inferwatch_collectors.fence import LOG_INTERVAL_NS, Fence


def divide(number: int, by: int) -> float:
    return number / by


def fail(text: str) -> None:
    raise ValueError(text)


def test_what_a_step_returns_is_handed_on() -> None:
    """Nothing is counted."""
    counted: list[str] = []
    fence = Fence(counted.append)

    assert fence.run("read", 0, divide, 6, 3) == 2
    assert fence.run("read", 0, counted.clear) is None
    assert counted == []


def test_a_fault_is_counted_by_its_stage() -> None:
    """The step is over, the caller goes on."""
    counted: list[str] = []
    fence = Fence(counted.append)

    assert fence.run("read", 0, divide, 1, 0) is None
    assert counted == ["read"]


def test_a_step_without_a_result_tells_whether_it_went_well() -> None:
    """That it returns nothing does not say so."""
    counted: list[str] = []
    fence = Fence(counted.append)

    assert fence.holds("text", 0, counted.clear)
    assert counted == []
    assert not fence.holds("text", 0, divide, 1, 0)
    assert counted == ["text"]


def test_the_log_names_type_and_place_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """A stage that fails with every byte is one line; what the exception says may be somebody's words."""
    fence = Fence(lambda _: None)
    for now_ns in (0, 1, LOG_INTERVAL_NS - 1):
        fence.run("read", now_ns, fail, "my secret")

    assert caplog.text.count("observer_fault") == 1
    assert "stage=read error=ValueError" in caplog.text
    assert "test_fence.py" in caplog.text
    assert "secret" not in caplog.text
    fence.run("read", LOG_INTERVAL_NS, fail, "my secret")
    fence.run("head", LOG_INTERVAL_NS, fail, "my secret")
    assert caplog.text.count("observer_fault") == 3
