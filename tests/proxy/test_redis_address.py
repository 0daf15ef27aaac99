"""redis_address and settings.sharing: where Redis is, and that nobody is shown its password."""

import builtins
from decimal import Decimal
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from inferwatch import config, redis_address
from inferwatch.cli import main
from inferwatch.config import ConfigError
from inferwatch.settings.budgets import BudgetRule, Budgets, fault
from inferwatch.settings.cost import Cost
from inferwatch.settings.sharing import Redis

SECRET = "redis://user:s3cret@redis.internal:6379/0"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"url": "redis://redis:6379/0"}, ""),
        ({"url": "rediss://redis"}, ""),
        ({"url": "unix:///run/redis.sock"}, ""),
        ({"url_file": "/run/secrets/redis"}, ""),
        ({"url": "redis://redis", "url_env": "REDIS_URL"}, "url: only one of"),
        ({"url": "http://redis"}, "url: expected `redis://host:port/number`"),
        ({"url": "redis://"}, "url: expected"),
        ({"url": "redis://redis:0"}, "url: expected"),
        ({"url": "redis://redis:port"}, "url: expected"),
        ({"url": "redis://re dis"}, "url: expected"),
        ({"url": SECRET}, "url: holds a user or a password"),
        ({"url_env": "REDIS-URL"}, "url_env: expected the name"),
        ({"namespace": "a{b"}, "namespace: expected 1 to 64"),
        ({"initial_percent": Decimal(-1)}, "initial_percent: expected 0 to 50"),
        ({"initial_percent": Decimal(51)}, "initial_percent: expected 0 to 50"),
        ({"initial_percent": Decimal("NaN")}, "initial_percent: expected 0 to 50"),
        ({"lease_s": 2, "report_interval_s": 1}, "report_interval_s: expected at most a quarter of lease_s (0.5)"),
    ],
)
def test_what_is_wrong_is_named_and_never_repeated(changes: dict[str, Any], problem: str) -> None:
    """By its key; an address may hold a password."""
    found = fault(Budgets(redis=Redis(**changes)), Cost())
    assert found.startswith(f"budgets.redis.{problem}" if problem else "")
    assert bool(found) == bool(problem)
    assert "s3cret" not in found


def test_the_address_comes_from_the_one_place_that_is_given(tmp_path: Path) -> None:
    """Plain, or the first line of a file, or a variable."""
    file = tmp_path / "url"
    file.write_text(f"{SECRET}\nsomething else\n")
    assert redis_address.read(Redis(url="redis://redis")) == "redis://redis"
    assert redis_address.read(Redis(url_file=str(file))) == SECRET
    assert redis_address.read(Redis(url_env="R"), {"R": SECRET}) == SECRET


def test_an_address_that_cannot_be_read_is_named_by_its_key(tmp_path: Path) -> None:
    """The file's path is not repeated, it may be the address itself; nor is what is in it."""
    file = tmp_path / "url"
    file.write_text("s3cret")
    for settings, problem in (
        (Redis(url_file=SECRET), "budgets.redis.url_file: cannot read the file"),
        (Redis(url_file="a\0b"), "budgets.redis.url_file: not the path"),
        (Redis(url_file=str(file)), "budgets.redis.url_file: expected"),
        (Redis(url_env="R"), "budgets.redis.url_env: there is no such"),
    ):
        with pytest.raises(ConfigError, match=problem) as caught:
            redis_address.read(settings, {})
        assert "s3cret" not in str(caught.value)


def test_a_ca_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "missing"):
        with pytest.raises(ConfigError, match=r"budgets\.redis\.tls_ca_file"):
            redis_address.check(Redis(url="rediss://redis", tls_ca_file=str(path)))


def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the start, by exit code 2; without Redis in the configuration it is not missed."""
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    monkeypatch.setattr(redis_address, "find_spec", lambda name: None)
    path = tmp_path / "config.yaml"
    path.write_text("budgets: {redis: {url: redis://redis}}\n")
    assert main(["check-config", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert error == "inferwatch: budgets.redis.url: needs redis-py: pip install 'inferwatch[redis]'\n"
    path.write_text("budgets: {redis: {url: ''}}\n")
    assert main(["check-config", "--config", str(path)]) == 0


def test_redis_is_not_imported_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain installation does not have it."""
    real = builtins.__import__

    def guarded(name: str, *arguments: Any, **more: Any) -> Any:
        assert name.partition(".")[0] != "redis", name
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", guarded)
    redis_address.check(Redis())
    assert not config.load(environ={}).budgets.redis.is_used


def test_shared_dollars_stay_within_what_redis_reckons_exactly() -> None:
    """2**53 nano-dollars; not shared, a budget may be larger."""
    rule: dict[str, Any] = {"name": "large", "limit": Decimal(9_000_001)}
    for more, problem in (({}, True), ({"shared": False}, False), ({"unit": "tokens"}, False)):
        budgets = Budgets(rules=(BudgetRule(**rule | more),), redis=Redis(url="redis://redis"))
        assert fault(budgets, Cost()).startswith("budgets.rules[0].limit: shared by hosts") == problem
    assert not fault(Budgets(rules=(BudgetRule(**rule),)), Cost())
