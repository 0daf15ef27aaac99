"""What commands have in common: exit codes, and how flags are read: faults in one line, numbers within bounds."""

import argparse
from typing import Any, Final, NoReturn

from inferwatch.settings.base import MAX_SECONDS

EXIT_OK: Final = 0
EXIT_RUNTIME: Final = 1
EXIT_USAGE: Final = 2


class OneLineParser(argparse.ArgumentParser):
    """Usage errors in one line, and no abbreviations: a new flag must not change what an old script means."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"inferwatch: {message}; see `{self.prog} --help`\n")


def positive(text: str) -> float:
    """Return a number above 0, of seconds or of anything.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value
