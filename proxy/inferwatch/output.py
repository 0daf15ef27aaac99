"""What a command prints: stdout that cannot be written is one line, once, and no traceback when Python ends."""

import contextlib
import errno
import os
import sys
from typing import Final

# What the system says of a file that takes no more. Any other OSError is no matter of stdout's.
_REFUSALS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE})


def finish() -> None:
    """Write what is still buffered.

    Raises:
        OSError: it cannot be written.
    """
    if sys.stdout is not None:  # whoever started us may have closed it
        sys.stdout.flush()


def refused(error: OSError) -> bool:
    """Tell whether it was stdout that could not be written: of files and addresses the name or the key is known."""
    return error.filename is None and error.errno in _REFUSALS


def give_up(error: OSError) -> None:
    """Say so, but where the reader has left, as `head` does; and throw away what Python would write at its end."""
    if error.errno != errno.EPIPE:
        sys.stderr.write(f"inferwatch: stdout: {error.strerror}\n")
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
