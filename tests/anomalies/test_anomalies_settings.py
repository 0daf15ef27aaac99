"""settings: what is out of range is refused by name."""

import pytest

from inferwatch.config import Config, ConfigError, load


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weeks_per_false_alarm", 0),
        ("weeks_per_false_alarm", 1000),
        ("min_history_hours", 10),
        ("tolerance", 1.0),
        ("max_tenants", 0),
        ("max_tenants", "many"),
    ],
)
def test_out_of_range_is_refused(key: str, value: object) -> None:
    """One line that names the key."""
    with pytest.raises(ConfigError, match=f"anomalies.{key}"):
        load(environ={}, flags={f"anomalies.{key}": value})


def test_defaults_are_those_that_were_measured() -> None:
    """Four weeks, two weeks of history, 1.75: the page on unusual spending quotes figures for these."""
    section = Config().anomalies
    assert (section.weeks_per_false_alarm, section.min_history_hours, section.tolerance) == (4.0, 336, 1.75)
