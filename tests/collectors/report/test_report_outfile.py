"""Where an export goes: whole or not at all into a file, straight through whatever is none."""

import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from inferwatch_collectors.report.outfile import whole


def write(out: Path, text: str = "rows") -> None:
    with whole(out) as path:
        path.write_text(text)


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    """Not before, and nothing is left beside it."""
    out = tmp_path / "out"
    with whole(out) as path:
        path.write_text("rows")
        assert not out.exists()
    assert out.read_text() == "rows"
    assert list(tmp_path.iterdir()) == [out]


def test_what_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The export of yesterday is better than half of today's."""
    out = tmp_path / "out"
    out.write_text("before")

    def half() -> None:
        with whole(out) as path:
            path.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


def test_the_mode_of_a_file_is_kept(tmp_path: Path) -> None:
    """Who made it private did so for the rows; they are so as well while they are written."""
    out = tmp_path / "out"
    out.touch(0o600)
    with whole(out) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.write_text("rows")
    assert (out.read_text(), stat.S_IMODE(out.stat().st_mode)) == ("rows", 0o600)


def test_a_file_that_is_only_read_is_replaced_as_before(tmp_path: Path) -> None:
    """Its folder says who may do that."""
    out = tmp_path / "out"
    out.touch(0o440)
    with whole(out) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.write_text("rows")
    assert (out.read_text(), stat.S_IMODE(out.stat().st_mode)) == ("rows", 0o440)


def test_a_file_in_shared_memory_is_a_file() -> None:
    """Under /dev, and whole or not at all as any other."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        test_what_fails_leaves_the_file_as_it_was(Path(folder))


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    """In its own folder, with its own mode."""
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.touch(0o600)
    link.symlink_to(target)
    write(link)
    assert link.is_symlink()
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("rows", 0o600)


def test_a_link_to_nothing_yet(tmp_path: Path) -> None:
    """Its file is made."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    write(link)
    assert link.is_symlink()
    assert (tmp_path / "target").read_text() == "rows"


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    """Who reads at its other end gets the rows, and it is a pipe afterwards."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()), daemon=True)
    reader.start()
    write(pipe)
    reader.join(30)
    assert got == ["rows"]
    assert pipe.is_fifo()


def test_a_device_is_written_through(tmp_path: Path) -> None:
    """Behind a link, too."""
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    write(link)
    assert link.is_symlink()
    assert stat.S_ISCHR(link.stat().st_mode)


@pytest.mark.parametrize("name", ["fd/1", "self/fd/1"])
def test_what_a_process_has_open_is_written_through(tmp_path: Path, name: str) -> None:
    """Also where it is a regular file: the shell that made it has it open, and goes on writing into it."""
    out = tmp_path / "out"
    code = (
        "import sys; from pathlib import Path; from inferwatch_collectors.report.outfile import whole\n"
        f"with whole(Path('/{'dev' if name == 'fd/1' else 'proc'}/{name}')) as path: path.write_text('rows')"
    )
    with out.open("wb") as file:
        inode = os.fstat(file.fileno()).st_ino
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True, timeout=60)
    assert (out.read_text(), out.stat().st_ino) == ("rows", inode)


def test_what_an_earlier_run_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """It was killed in the middle; its rest may even be a link to elsewhere."""
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "out.part").symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "out")
    assert (tmp_path / "elsewhere").read_text() == "precious"
    assert (tmp_path / "out").read_text() == "rows"
