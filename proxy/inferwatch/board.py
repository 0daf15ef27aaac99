"""The board: what every account has spent and what open requests hold of it, in memory that all processes share.

One file, mapped by each relay and by the collector, so that asking "is there room?" and taking it costs microseconds
and no message. It holds 64-bit integers only: a header, then slots of SLOT_WORDS words, found by the digest of the
account (open addressing).

Who writes what. Relays add to `taken_…` and to the counts of decisions, and raise `wanted_…`, which the collector sets
back. Everything else in a slot (`spent`, `released_…`, …) is the collector's. What is held is `taken - released`, both
only ever added to, modulo 2**62, so that it never matters who was first.

The lock is `flock` on the file: the kernel lets go of it when its holder dies, and it keeps threads apart as well as
processes, as long as each opens the board for itself. It is held for some microseconds. Nobody waits for it for long:
a process that is stopped in the middle must not stop traffic (promise 1), so `lock` gives up, and the caller decides.

Where the file is. In memory (`place`): a page of a file on disk can be locked by the kernel while it is written back.
It is made anew by the supervisor's `clear` at each start, and survives its children. It is lost with the host; what
was spent is in the ledger, what was held has ended with the relays.
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from inferwatch.budget_rules import Digest, TokenRate

# Names the layout below: another version of it is not read.
MAGIC: Final = int.from_bytes(b"iwboard2", "little")

WORD_BYTES: Final = 8
HEADER_WORDS: Final = 64
SLOT_WORDS: Final = 20

# Words of the header.
H_MAGIC: Final = 0
H_SLOTS: Final = 1
H_BEAT_NS: Final = 2  # CLOCK_MONOTONIC of the collector's last sign of life; at first, of the making of the board
H_FULL: Final = 3  # requests that passed because an account found no slot
H_UNSURE: Final = 4  # requests that passed because the collector had been silent for long
H_INITIAL: Final = 5  # of a shared account that has no ceiling: millionths of the limit that this host may spend
H_RATES: Final = 8  # prompt and completion of each of MEASURED, in turn

# What tokens come to in units that only the collector can measure.
MEASURED: Final = ("gpu", "gpu_seconds", "joules")

# Words of a slot.
DIGEST_1: Final = 0
DIGEST_2: Final = 1
SPENT: Final = 2  # settled, and what open requests are known to have spent
END_S: Final = 3  # Unix time at which `spent` is 0 again; 0: rolling, or not known yet
TAKEN_EXPECTED: Final = 4
TAKEN_WORST: Final = 5
RELEASED_EXPECTED: Final = 6
RELEASED_WORST: Final = 7
COMPLETION_TOKENS: Final = 8  # what a choice is expected to come to; 0: not known
PROMPT_PER_KB: Final = 9  # prompt tokens expected for 1,000 bytes of request body; 0: not known
ADMITTED: Final = 10
REJECTED: Final = 11
WOULD_REJECT: Final = 12
ROOM_S: Final = 13  # of a spent rolling budget: Unix time at which there is room again; 0: not known
KNOWN: Final = 14  # the collector has been told of this account before
CEILING: Final = 15  # of a shared account: what this host may come to, plus 1; 0: no more than its initial share
ELSEWHERE: Final = 16  # of a shared account: what other hosts have spent, as last told
WANTED_EXPECTED: Final = 17  # of a shared account: the largest need of a request since the collector last looked
WANTED_WORST: Final = 18

FREE: Final = 0
TOMBSTONE: Final = -1

# Counts only grow, and wrap here: a difference is right as long as it is below half of it.
COUNT_MASK: Final = 2**62 - 1

# Of 4,096 slots that are three quarters full, one in a million look-ups goes this far.
MAX_PROBES: Final = 64

# Slots for each account that may be: with as many again, a look-up ends after one or two.
SLOTS_PER_ACCOUNT: Final = 2

# Opening a board is not on the way of a request.
OPEN_WAIT_S: Final = 2.0

# Memory that is a file. Without it (not Linux) the board is beside the tap's socket.
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder; the name in it is ours, see `Board`


class BoardError(OSError):
    """There is no usable board; the message says why."""


def place(state_dir: Path, otherwise: Path) -> Path:
    """Return where the board of the Inferwatch with this state folder is; without shared memory in `otherwise`.

    Raises:
        OSError: there is no such folder.
    """
    folder = state_dir.stat()  # two containers may share memory and have state folders of one name
    identity = f"{folder.st_dev}:{folder.st_ino}:{state_dir}"
    name = f"inferwatch-{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}.board"
    usable = SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK)
    return (SHARED_MEMORY if usable else otherwise) / name


def clear(path: Path) -> None:
    """Remove the board of an earlier life. By whoever holds the lock on the state folder, before anybody opens it.

    Raises:
        OSError: it cannot be removed.
    """
    path.unlink(missing_ok=True)


class Board:
    """One process's view of it. Not thread-safe: a thread opens its own."""

    def __init__(self, path: Path, max_accounts: int, *, lock_wait_s: float) -> None:
        """Open the board, making it if it is not there.

        Raises:
            BoardError: it cannot be opened, belongs to somebody else, or is of another kind or size.
        """
        self._slots = max_accounts * SLOTS_PER_ACCOUNT
        self._lock_wait_s = lock_wait_s
        size = (HEADER_WORDS + self._slots * SLOT_WORDS) * WORD_BYTES
        try:
            # Nobody can make us write through a link, and a file of another user's is none of ours.
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise BoardError(error.errno, f"{path}: {error.strerror}") from None
        try:
            self._map = self._opened(path, size)
        except BaseException:
            os.close(self._file)
            raise
        self._view = memoryview(self._map)
        self.words: memoryview[int] = self._view.cast("q")
        """All words, for those who hold the lock; slot n begins at `base(n)`."""

    def _opened(self, path: Path, size: int) -> mmap.mmap:
        if os.fstat(self._file).st_uid != os.geteuid():
            raise BoardError(0, f"{path}: belongs to another user")
        if not self._lock(OPEN_WAIT_S):
            raise BoardError(0, f"{path}: locked for more than {OPEN_WAIT_S} s")
        try:
            found = os.fstat(self._file).st_size
            if not found:
                os.ftruncate(self._file, size)
            elif found != size:
                raise BoardError(0, f"{path}: has {found} bytes, expected {size}")
            try:
                mapped = mmap.mmap(self._file, size)
            except OSError as error:
                raise BoardError(error.errno, f"{path}: {error.strerror}") from None
            with memoryview(mapped) as view, view.cast("q") as words:
                if not words[H_MAGIC]:  # new, or its maker died just then
                    words[H_SLOTS] = self._slots
                    words[H_BEAT_NS] = time.monotonic_ns()
                    words[H_MAGIC] = MAGIC
                elif (words[H_MAGIC], words[H_SLOTS]) != (MAGIC, self._slots):
                    raise BoardError(0, f"{path}: is the board of another version")
        finally:
            self.unlock()
        return mapped

    def close(self) -> None:
        """Let go of it."""
        self.words.release()
        self._view.release()
        self._map.close()
        os.close(self._file)

    # --- the lock

    def lock(self) -> bool:
        """Take the lock; False if somebody sits on it."""
        return self._lock(self._lock_wait_s)

    def unlock(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the lock for a while; yields whether we have it."""
        held = self.lock()
        try:
            yield held
        finally:
            if held:
                self.unlock()

    def _lock(self, wait_s: float) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            until_s = time.monotonic() + wait_s
            while time.monotonic() < until_s:
                os.sched_yield()  # to a holder whose core we are on; it needs some 10 us
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return True
            return False
        return True

    # --- slots, under the lock

    @staticmethod
    def base(slot: int) -> int:
        """Return the first word of a slot."""
        return HEADER_WORDS + slot * SLOT_WORDS

    def find(self, digest: Digest, *, make: bool) -> int:
        """Return the slot of an account, -1 if there is none: not made, or with `make`, no place for it."""
        words, slots = self.words, self._slots
        first, second = digest
        place = -1
        slot = first % slots
        for _ in range(min(MAX_PROBES, slots)):
            base = HEADER_WORDS + slot * SLOT_WORDS
            word = words[base]
            if word == first and words[base + DIGEST_2] == second:
                return slot
            if word in (FREE, TOMBSTONE) and place < 0:
                place = slot
            if word == FREE:
                break
            slot = slot + 1 if slot + 1 < slots else 0
        if not make or place < 0:
            return -1
        base = HEADER_WORDS + place * SLOT_WORDS
        for offset in range(2, SLOT_WORDS):
            words[base + offset] = 0
        words[base + DIGEST_2] = second
        words[base] = first
        return place

    def free(self, slot: int) -> None:
        """Give up a slot of which nothing is held."""
        self.words[self.base(slot)] = TOMBSTONE

    def beat(self, now_ns: int) -> None:
        """The collector lives."""
        self.words[H_BEAT_NS] = now_ns

    def rate(self, measured: str) -> TokenRate:
        """Return what the collector has learnt of a unit in MEASURED; zeros: nothing yet."""
        at = H_RATES + 2 * MEASURED.index(measured)
        return TokenRate(self.words[at], self.words[at + 1])

    def set_rate(self, measured: str, rate: TokenRate) -> None:
        """Publish what tokens come to."""
        at = H_RATES + 2 * MEASURED.index(measured)
        self.words[at], self.words[at + 1] = rate.prompt, rate.completion
