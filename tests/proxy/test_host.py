"""host: what is taken of the machine at the start. Sockets, folder and secret: test_supervisor."""

import resource

import pytest

from inferwatch import host
from inferwatch.config import Config, ConfigError


def test_open_files_are_raised_as_far_as_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login shell allows 1,024: five hundred streams."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(host, "MAX_OPEN_FILES", 512)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        host.allow_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (512, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ((1024, 4096), (4096, 4096)),
        ((1024, resource.RLIM_INFINITY), (host.MAX_OPEN_FILES, resource.RLIM_INFINITY)),
        ((4096, 4096), None),
        ((host.MAX_OPEN_FILES + 1, resource.RLIM_INFINITY), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_limits_are_never_lowered(
    limits: tuple[int, int], wanted: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is allowed already stays."""
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: taken.append(pair))
    host.allow_open_files()
    assert taken == ([] if wanted is None else [wanted])


@pytest.mark.parametrize("state_dir", ["", "~/state", "~nosuchuser/state"])
def test_a_home_directory_that_is_none(state_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user may have no entry in passwd, and no HOME: one line says what is missing."""

    def homeless(_: str) -> None:
        raise KeyError

    for name in ("HOME", "STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", homeless)
    with pytest.raises(ConfigError, match=r"^state_dir: ~.*: there is no such home directory; name a folder$"):
        host.state_path(Config(state_dir=state_dir))
