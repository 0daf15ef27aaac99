"""The section `engine_metrics`."""

import pytest

from inferwatch.config import Config, ConfigError, load


def test_defaults() -> None:
    """It is on, every five seconds, at an address found by itself."""
    section = Config().engine_metrics
    assert (section.enabled, section.url, section.interval_s) == (True, "", 5.0)


@pytest.mark.parametrize("url", ["http://engine:8002/metrics", "https://[::1]/prometheus/metrics?x=1"])
def test_an_address(url: str) -> None:
    """A whole URL is taken."""
    assert load(environ={"INFERWATCH__ENGINE_METRICS__URL": url}).engine_metrics.url == url


@pytest.mark.parametrize(
    "url", ["engine:8002", "ftp://engine/", "http://", "http://a b/", "http://engine:0/", "http://[::1", "http://a#b"]
)
def test_no_address(url: str) -> None:
    """What is no HTTP address is refused in one line that names the key."""
    with pytest.raises(ConfigError, match=r"^engine_metrics\.url: "):
        load(environ={"INFERWATCH__ENGINE_METRICS__URL": url})


@pytest.mark.parametrize("url", ["http://me:secret@engine/metrics", "http://me:1/secret #@engine", "me:secret@engine"])
def test_a_secret_in_the_address(url: str) -> None:
    """A password would be shown by /config: it is refused, and not quoted."""
    with pytest.raises(ConfigError) as caught:
        load(environ={"INFERWATCH__ENGINE_METRICS__URL": url})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("INTERVAL_S", "0.01"), ("TIMEOUT_S", "0"), ("MAX_BYTES", "0")])
def test_bounds(key: str, value: str) -> None:
    """Values without sense are refused."""
    with pytest.raises(ConfigError, match=rf"^engine_metrics\.{key.lower()}: "):
        load(environ={f"INFERWATCH__ENGINE_METRICS__{key}": value})
