"""board: accounts in memory that several processes share."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch import board as boards
from inferwatch.board import KNOWN, SLOT_WORDS, SPENT, Board, BoardError
from inferwatch.budget_rules import TokenRate, digest_of

OpenBoard = Callable[..., Board]


def test_what_one_process_writes_another_sees(open_board: OpenBoard) -> None:
    """Each opens the file for itself; an account has the same slot for all."""
    one, other = open_board(), open_board()
    slot = one.find(digest_of("acme", ()), make=True)
    one.words[one.base(slot) + SPENT] = 17

    assert other.find(digest_of("acme", ()), make=False) == slot
    assert other.words[other.base(slot) + SPENT] == 17


def test_an_account_that_was_never_made_is_not_found(open_board: OpenBoard) -> None:
    """Looking does not make."""
    board = open_board()
    assert board.find(digest_of("acme", ()), make=False) == -1
    assert board.find(digest_of("acme", ()), make=False) == -1


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 128), seed=st.integers(0, 1000))
def test_every_account_has_a_slot_of_its_own(tmp_path_factory: pytest.TempPathFactory, count: int, seed: int) -> None:
    """As many as there are slots for, in any order; the rest gets none, and disturbs nobody."""
    board = Board(tmp_path_factory.mktemp("b") / "a", 64, lock_wait_s=1)
    found = {}
    for number in range(count):
        slot = board.find(digest_of(f"{seed}-{number}", ()), make=True)
        if slot >= 0:
            found[number] = slot
    assert len(set(found.values())) == len(found)
    assert len(found) >= min(count, 64)
    assert all(board.find(digest_of(f"{seed}-{number}", ()), make=True) == slot for number, slot in found.items())
    board.close()


def test_a_slot_that_was_given_up_serves_another_account_and_is_clean(open_board: OpenBoard) -> None:
    """What the former one had is gone; those that were placed behind it are still found."""
    board = open_board(max_accounts=16)
    digests = [digest_of(str(number), ()) for number in range(32)]
    slots = [board.find(digest, make=True) for digest in digests]
    victim = slots.index(max(slots))
    for offset in range(2, SLOT_WORDS):
        board.words[board.base(slots[victim]) + offset] = 99
    board.free(slots[victim])

    assert board.find(digests[victim], make=False) == -1
    others = [board.find(digest, make=False) for digest in digests if digest != digests[victim]]
    assert others == [slot for slot in slots if slot != slots[victim]]
    assert board.find(digest_of("new", ()), make=True) == slots[victim]
    assert not any(board.words[board.base(slots[victim]) + offset] for offset in range(2, SLOT_WORDS))


def test_rates_are_published(open_board: OpenBoard) -> None:
    """What the collector has learnt of each unit, every relay reads."""
    one, other = open_board(), open_board()
    for index, measured in enumerate(boards.MEASURED):
        one.set_rate(measured, TokenRate(index, 10 + index))
    assert [other.rate(measured) for measured in boards.MEASURED] == [
        TokenRate(0, 10),
        TokenRate(1, 11),
        TokenRate(2, 12),
    ]


# --- the lock


def test_the_lock_keeps_others_out_for_as_long_as_they_are_ready_to_wait(open_board: OpenBoard) -> None:
    """Another view, of the same process even, does not get it, and gives up."""
    one, other = open_board(), open_board(lock_wait_s=0.01)
    assert one.lock()
    assert not other.lock()
    one.unlock()
    with other.locked() as held:
        assert held


HOLDER = """
import sys, time
from pathlib import Path
from inferwatch.board import Board
Board(Path(sys.argv[1]), 64, lock_wait_s=1).lock()
print("held", flush=True)
time.sleep(60)
"""


def test_the_lock_of_a_process_that_is_killed_is_free(open_board: OpenBoard, tmp_path: Path) -> None:
    """The kernel lets go of it: nobody is locked out by the dead."""
    board = open_board(lock_wait_s=0.01)
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "a.board")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not board.lock()
        holder.kill()
        holder.wait()
        assert board.lock()


# --- whose board it is


def test_a_board_of_another_size_or_version_is_not_used(open_board: OpenBoard, tmp_path: Path) -> None:
    """Reading it by our layout would be reading nonsense."""
    board = open_board(max_accounts=64)
    with pytest.raises(BoardError, match="bytes, expected"):
        Board(tmp_path / "a.board", 65, lock_wait_s=1)
    board.words[boards.H_MAGIC] = 1234
    with pytest.raises(BoardError, match="another version"):
        Board(tmp_path / "a.board", 64, lock_wait_s=1)


def test_a_board_whose_maker_died_early_is_taken_over(tmp_path: Path) -> None:
    """The file has its size, but nothing is in it yet."""
    path = tmp_path / "a.board"
    Board(path, 64, lock_wait_s=1).close()
    size = path.stat().st_size
    path.write_bytes(bytes(size))
    board = Board(path, 64, lock_wait_s=1)
    assert board.find(digest_of("acme", ()), make=True) >= 0
    board.close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write to the folder must not have us write elsewhere."""
    (tmp_path / "a.board").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BoardError):
        Board(tmp_path / "a.board", 64, lock_wait_s=1)
    assert not (tmp_path / "elsewhere").exists()


def test_nobody_else_may_read_it(open_board: OpenBoard, tmp_path: Path) -> None:
    """What tenants spend is theirs and ours."""
    open_board()
    assert (tmp_path / "a.board").stat().st_mode & 0o777 == 0o600


def test_a_board_that_is_locked_for_ever_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, not a hang."""
    monkeypatch.setattr(boards, "OPEN_WAIT_S", 0.01)
    path = tmp_path / "a.board"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(BoardError, match="locked"):
        Board(path, 64, lock_wait_s=1)
    os.close(file)


def test_each_state_folder_has_its_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In shared memory where there is any, else where the caller says; removing one that is not there is fine."""
    shared, otherwise = tmp_path / "shm", tmp_path / "run"
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (shared, a, b):
        folder.mkdir()
    monkeypatch.setattr(boards, "SHARED_MEMORY", shared)
    first, second = boards.place(a, otherwise), boards.place(b, otherwise)
    assert first != second
    assert {first.parent, second.parent} == {shared}
    monkeypatch.setattr(boards, "SHARED_MEMORY", tmp_path / "none")
    assert boards.place(a, otherwise).parent == otherwise
    boards.clear(first)
    first.write_bytes(b"old")
    boards.clear(first)
    assert not first.exists()


def test_a_new_account_is_not_known_to_the_collector(open_board: OpenBoard) -> None:
    """A relay makes it; only the collector may say that it has heard of it."""
    board = open_board()
    slot = board.find(digest_of("acme", ()), make=True)
    assert not board.words[board.base(slot) + KNOWN]


def test_folders_of_one_name_have_different_boards(tmp_path: Path) -> None:
    """Containers may share memory, and their state folders are called the same."""
    folder, other = tmp_path / "state", tmp_path / "other"
    folder.mkdir()
    place = boards.place(folder, tmp_path)
    assert boards.place(folder, tmp_path) == place
    folder.rename(other)
    folder.mkdir()
    assert boards.place(folder, tmp_path) != place
