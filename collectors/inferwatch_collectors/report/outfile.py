"""Where an export goes: a file that appears under its name when it is whole, or what stands there and is none.

A pipe, a terminal or a device is written straight through: renaming a file over it would take it away from whoever else
uses it, as root also /dev/stdout itself. Links are followed.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# Names that stand for what a process has open, whatever kind of file that is.
_SPECIAL: Final = tuple(map(Path, ("/dev/fd", "/dev/stdout", "/dev/stderr", "/proc")))


@contextlib.contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Give the path to write to. When the block ends well, what was written is at `out`; else `out` is as before.

    Raises:
        OSError: it cannot be made, or put in its place.
    """
    before = _status(out)
    if _is_special(out) or (before is not None and not stat.S_ISREG(before.st_mode)):
        yield out
        return
    target = Path(os.path.realpath(out))
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        mode = _made(part, before)
        yield part
        part.chmod(mode)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _status(out: Path) -> os.stat_result | None:
    try:
        return out.stat()
    except FileNotFoundError:
        return None


def _is_special(out: Path) -> bool:
    absolute = out.absolute()
    return any(absolute.is_relative_to(folder) for folder in _SPECIAL)


def _made(part: Path, before: os.stat_result | None) -> int:
    """Make it, empty, and return the mode that it is to have: that of the file that it is going to replace.

    Until then nobody else may read it who could not read that one, and we may write to it.
    """
    mode = 0o666 if before is None else stat.S_IMODE(before.st_mode)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, (mode & 0o777) | stat.S_IWUSR)
    try:
        if before is None:
            return stat.S_IMODE(os.fstat(descriptor).st_mode)
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, before.st_uid, before.st_gid)
        os.fchmod(descriptor, mode | stat.S_IWUSR)
        return mode
    finally:
        os.close(descriptor)
