"""Our addresses beside each other and beside the engine's."""

import pytest

from inferwatch.settings.addresses import clash

ADMIN = ("127.0.0.1", 9480)


@pytest.mark.parametrize(
    ("listen", "upstream"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.53"),
        ("0.0.0.0", "0.0.0.0"),
        ("::", "127.0.0.1"),
        ("::", "::1"),
        ("::", "localhost"),
        ("0.0.0.0", "localhost"),
        ("127.0.0.1", "localhost"),
        ("localhost", "LOCALHOST"),
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("10.0.0.5", "10.0.0.5"),
        ("gpu-1", "gpu-1"),
    ],
)
def test_an_engine_that_is_ourselves(listen: str, upstream: str) -> None:
    """Each request would come back, until there are no files left."""
    fault = "upstream.url: port 8000 here is that of `listen`: requests would go round; name the engine's"
    assert clash((listen, 8000), ADMIN, (upstream, 8000)) == fault


@pytest.mark.parametrize(
    ("listen", "upstream"),
    [
        (("0.0.0.0", 8080), ("127.0.0.1", 8000)),
        (("10.0.0.5", 8000), ("127.0.0.1", 8000)),  # the engine keeps to loopback, we stand outside
        (("127.0.0.2", 8000), ("127.0.0.1", 8000)),
        (("0.0.0.0", 8000), ("10.0.0.7", 8000)),
        (("0.0.0.0", 8000), ("engine", 8000)),
        (("0.0.0.0", 8000), ("::1", 8000)),
        (("::1", 8000), ("127.0.0.1", 8000)),
        (("127.0.0.1", 0), ("127.0.0.1", 8000)),
    ],
)
def test_an_engine_beside_us(listen: tuple[str, int], upstream: tuple[str, int]) -> None:
    """The same port on another address, or another port, is somebody else."""
    assert clash(listen, ADMIN, upstream) == ""


def test_several_relays_share_the_port() -> None:
    """So may an engine: what is sent to an address of its own reaches it, and not who listens on all of them."""
    assert clash(("0.0.0.0", 8000), ADMIN, ("127.0.0.1", 8000), alone=False) == ""
    assert clash(("127.0.0.1", 8000), ADMIN, ("127.0.0.1", 8000), alone=False) != ""


@pytest.mark.parametrize(
    ("listen", "admin", "same"),
    [
        ("127.0.0.1:9480", "127.0.0.1:9480", True),
        ("0.0.0.0:9480", "127.0.0.1:9480", True),
        ("127.0.0.1:9480", "0.0.0.0:9480", True),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("10.0.0.5:9480", "127.0.0.1:9480", False),
        ("127.0.0.1:8080", "127.0.0.1:9480", False),
    ],
)
def test_two_ports_of_ours(listen: str, admin: str, same: bool) -> None:
    """Are two, but for 0, which is any that is free."""
    (data_host, _, data_port), (admin_host, _, admin_port) = listen.rpartition(":"), admin.rpartition(":")
    fault = clash((data_host, int(data_port)), (admin_host, int(admin_port)), ("engine", 8000))
    assert fault == ("admin: port 9480 is that of `listen`; the data port and the admin port are two" if same else "")
