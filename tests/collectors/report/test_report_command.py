"""`inferwatch report`: what people and scripts get of it."""

import contextlib
import http.server
import json
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from inferwatch import cli

SPAN = ("--from", "2026-03-01", "--to", "2026-03-04")


@pytest.fixture(name="state")
def _state(shop: Any) -> list[str]:
    shop.sample()
    return ["--state-dir", str(shop.path.parent)]


def test_a_table_in_the_terminal(state: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without flags of its own: the whole report as a table."""
    assert cli.main(["report", *state, *SPAN]) == 0
    assert "By tenant" in capsys.readouterr().out


def test_prices_come_from_the_configuration(state: list[str], tmp_path: Path, capsys: Any) -> None:
    """Price rules and price lists to compare with are those of the collector's configuration."""
    config = tmp_path / "config.yml"
    config.write_text(
        "prices:\n  rules:\n    - {model: qwen, input: 2, cached_input: 0.5, output: 8}\n  compare: [openai/gpt-5.5]\n"
    )
    assert cli.main(["report", *state, *SPAN, "--config", str(config), "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cache"]["saved_nanodollars"] == 6_000
    assert [each["name"] for each in report["break_even"]] == ["openai/gpt-5.5"]


def test_into_a_file(state: list[str], tmp_path: Path, capsys: Any) -> None:
    """`--out` leaves the terminal empty."""
    out = tmp_path / "page.md"
    assert cli.main(["report", *state, *SPAN, "--format", "markdown", "--out", str(out)]) == 0
    assert out.read_text().startswith("# Usage from 2026-03-01")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["csv", "json", "parquet"])
def test_exports(state: list[str], tmp_path: Path, capsys: Any, name: str) -> None:
    """Rows go into the file, and stderr says how many."""
    out = tmp_path / "rows"
    flags = ["--export", "requests", "--format", name, "--out", str(out)]
    assert cli.main(["report", *state, *SPAN, *flags]) == 0
    assert capsys.readouterr().err == f"inferwatch: 5 rows written to {out}\n"


@pytest.mark.parametrize("what", ["requests", "usage"])
def test_an_export_of_one_tenant(state: list[str], capsys: Any, what: str) -> None:
    """Has no row of another."""
    flags = ["--export", what, "--tenant", "beta", "--format", "json"]
    assert cli.main(["report", *state, *SPAN, *flags]) == 0
    assert {row["tenant"] for row in json.loads(capsys.readouterr().out)} == {"beta"}


def test_an_export_to_the_terminal(state: list[str], capsys: Any) -> None:
    """Without a format and a file an export is CSV on stdout, nothing beside it."""
    assert cli.main(["report", *state, *SPAN, "--export", "usage", "--level", "hour"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("start_s,tenant,model,operation,user,feature,outcome,waste,requests,")
    assert captured.err == ""


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--from", "soon"], 2, "report: from: expected a day or a minute"),
        (["--format", "parquet"], 2, "report: format: parquet is for --export"),
        (["--export", "requests", "--format", "markdown"], 2, "report: format: an export is one of csv, json, parquet"),
        (["--export", "requests", "--format", "parquet"], 1, "report: parquet is not for a terminal"),
        (["--level", "hour"], 2, "report: level: is of --export usage"),
        (
            ["--export", "requests", "--by", "model"],
            2,
            "report: export: --by selects nothing of its rows; --from, --to",
        ),
        (["--export", "usage", "--top", "3"], 2, "report: export: --top selects nothing of its rows; --from, --to and"),
        (["--export", "requests", "--level", "day"], 2, "report: export: --level selects nothing of its rows; --from"),
        (
            ["--export", "usage", "--from", "2026-03-01T11:00", "--to", "2026-03-01T13:00"],
            2,
            "report: level: no day begins from 2026-03-01T11:00 until before 2026-03-01T13:00; finer: minute, hour",
        ),
        (["--out", "/nowhere/page"], 1, "report: /nowhere/page: No such file or directory"),
    ],
)
def test_errors_are_one_line(state: list[str], capsys: Any, flags: list[str], code: int, message: str) -> None:
    """2 for what was asked wrongly, 1 for what cannot be done."""
    assert cli.main(["report", *state, *flags]) == code
    error = capsys.readouterr().err
    assert error.startswith(f"inferwatch: {message}")
    assert error.count("\n") == 1


def test_no_ledger(tmp_path: Path, capsys: Any) -> None:
    """A state folder without a ledger is named, and nothing is made in it."""
    assert cli.main(["report", "--state-dir", str(tmp_path)]) == 1
    assert "ledger.sqlite3: there is no ledger; --state-dir or" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [1, 99])
def test_a_ledger_of_another_version(tmp_path: Path, capsys: Any, version: int) -> None:
    """A reader changes no schema: an older file is for the collector to bring up to date, a newer one for a newer us."""
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as file:
        file.execute(f"PRAGMA user_version = {version}")
    file.close()
    assert cli.main(["report", "--state-dir", str(tmp_path)]) == 1
    assert f"its schema is {version}" in capsys.readouterr().err


def test_a_file_that_is_no_ledger(tmp_path: Path, capsys: Any) -> None:
    """One line, no traceback."""
    (tmp_path / "ledger.sqlite3").write_bytes(b"no database at all" * 100)
    assert cli.main(["report", "--state-dir", str(tmp_path)]) == 1
    assert "file is not a database" in capsys.readouterr().err


@pytest.mark.parametrize("blob", ["x'0102'", "x''", "x'93'", "x'929901'", "'text'", "x'81a161'"])
def test_a_damaged_row(state: list[str], shop: Any, tmp_path: Path, capsys: Any, blob: str) -> None:
    """Names the row, in one line, and nothing of what is in it; no half of an export is left."""
    with contextlib.closing(sqlite3.connect(shop.path)) as file, file:
        file.execute(f"UPDATE requests SET record = {blob} WHERE seq = 2")
    out = tmp_path / "rows.csv"
    assert cli.main(["report", *state, *SPAN, "--export", "requests", "--out", str(out)]) == 1
    assert capsys.readouterr().err == "inferwatch: report: the ledger: row 2 of its requests is damaged\n"
    assert not out.exists()


def test_a_damaged_row_that_was_voted_on(state: list[str], shop: Any, capsys: Any) -> None:
    """The report of votes needs it; the same line."""
    with contextlib.closing(sqlite3.connect(shop.path)) as file, file:
        file.execute("UPDATE requests SET record = x'0102'")
        file.execute(
            "INSERT INTO feedback (request_id, wall_ns, tenant, model, variant, thumb, score, label, comment) "
            "SELECT request_id, wall_ns, tenant, model, NULL, 'up', NULL, '', '' FROM requests LIMIT 1"
        )
    assert cli.main(["report", *state, *SPAN]) == 1
    assert capsys.readouterr().err == "inferwatch: report: the ledger: a row of its requests is damaged\n"


@pytest.mark.parametrize("flags", [[], ["--export", "requests"]])
def test_a_terminal_that_takes_nothing(state: list[str], flags: list[str]) -> None:
    """One line names stdout."""
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-m", "inferwatch", "report", *state, *SPAN, *flags]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, b"inferwatch: stdout: No space left on device\n")


def test_drift_is_asked_of_the_running_collector(state: list[str], capsys: Any) -> None:
    """Nobody answers: one line that says where, and no report of the ledger in its place."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        port = taken.getsockname()[1]
        assert cli.main(["report", *state, "--drift", "--admin", f"127.0.0.1:{port}"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"inferwatch: report: no answer on the admin port 127.0.0.1:{port}: ")


@pytest.mark.parametrize(
    "flags",
    [["--from", "2026-03-01"], ["--to", "2026-03-01"], ["--by", "model"], ["--top", "3"], ["--level", "hour"]],
)
def test_drift_refuses_what_selects_nothing_of_it(state: list[str], capsys: Any, flags: list[str]) -> None:
    """What is given is not quietly left out: one line names the flag, and the one that does select."""
    assert cli.main(["report", *state, "--drift", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"inferwatch: report: drift: {flags[0]} selects nothing of it; --tenant does\n"


def test_drift_of_one_tenant_is_asked_for_by_name(state: list[str], capsys: Any) -> None:
    """Whatever stands in the name reaches the collector as it is."""
    asked: list[str] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"of one tenant\n")

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        admin = f"127.0.0.1:{server.server_port}"
        assert cli.main(["report", *state, "--drift", "--tenant", "a&b c", "--admin", admin]) == 0
    assert capsys.readouterr().out == "of one tenant\n"
    assert asked == ["/drift?format=text&tenant=a%26b+c"]


def test_drift_has_two_formats(state: list[str], capsys: Any) -> None:
    """Words or JSON."""
    assert cli.main(["report", *state, "--drift", "--format", "csv"]) == 2
    assert "drift: --format is one of table, json" in capsys.readouterr().err
