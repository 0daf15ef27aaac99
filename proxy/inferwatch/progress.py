"""A word about what takes longer than a person likes to wait without one: on stderr, where no script reads it."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

# From when silence looks like a fault, and how often it is said again.
SLOW_S: Final = 2.0
AGAIN_S: Final = 5.0


@contextlib.contextmanager
def shown(what: str, figure: Callable[[], str] = lambda: "", *, slow_s: float = SLOW_S) -> Iterator[None]:
    """Tell that `what` is being done if it takes longer than `slow_s`, and then now and again how long it has taken.

    `figure` says how far it is, and is called in another thread.
    """
    done = threading.Event()

    def tell() -> None:
        began_s, wait_s = time.monotonic(), slow_s
        while not done.wait(wait_s):
            far = f", {said}" if (said := figure()) else ""
            sys.stderr.write(f"inferwatch: {what} … {time.monotonic() - began_s:.0f} s{far}\n")
            sys.stderr.flush()
            wait_s = AGAIN_S

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
