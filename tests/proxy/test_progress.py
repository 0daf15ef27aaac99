"""A word about what takes long."""

import time

import pytest

from inferwatch import progress


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither at once nor later."""
    with progress.shown("report: reading"):
        pass
    assert tuple(capsys.readouterr()) == ("", "")


def test_what_is_slow_says_so_and_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On stderr, now and again; nothing after its end."""
    monkeypatch.setattr(progress, "AGAIN_S", 0.01)
    said = 0

    def figure() -> str:
        nonlocal said
        said += 1
        return f"{said} rows"

    with progress.shown("report: exporting", figure, slow_s=0.01):
        while said < 3:
            time.sleep(0.005)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[:2] == [
        "inferwatch: report: exporting … 0 s, 1 rows",
        "inferwatch: report: exporting … 0 s, 2 rows",
    ]
    told = said
    time.sleep(0.05)
    assert said == told


def test_a_failure_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    """And passes through."""
    with pytest.raises(ValueError, match="wrong"), progress.shown("report: reading", slow_s=60):
        raise ValueError("wrong")
