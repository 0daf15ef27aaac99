"""The command line: commands, exit codes, one-line errors, and what a command may import."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from inferwatch import __version__, cli, config, config_pages
from inferwatch.config import Config
from inferwatch.config import keys as declared_keys

ROOT = Path(__file__).parents[2]
TESTDATA = ROOT / "tests/testdata/config"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No INFERWATCH__ variable and no state folder of the developer's reaches these tests; help is not wrapped."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in list(__import__("os").environ):
        if name.startswith(config.ENV_PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "300")


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a shell would."""
    return subprocess.run(
        [sys.executable, "-m", "inferwatch", *words], capture_output=True, text=True, check=False, timeout=60, cwd=cwd
    )


def exit_of(*words: str) -> int:
    """Run in this process and return the exit code, also of argparse."""
    try:
        return cli.main(list(words))
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else -1


def test_help_lists_every_command_and_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody has to read the source to find a command."""
    assert exit_of("--help") == cli.EXIT_OK

    text = " ".join(capsys.readouterr().out.split())
    for name, command in cli.COMMANDS.items():
        assert f"{name} {command.help}" in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_its_flags(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` of each command says something about each of its flags."""
    assert exit_of(name, "--help") == cli.EXIT_OK

    out = capsys.readouterr().out
    assert cli.COMMANDS[name].help in out
    for line in out.splitlines():
        if line.startswith("  --"):
            assert re.fullmatch(r"  --\S+( \S+)?\s{2,}\S.*|  --\S+( \S+)?", line), line


@pytest.mark.parametrize("name", ["serve", "check-config", "healthcheck"])
def test_the_flags_of_the_configuration_are_the_same_everywhere(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What `serve` takes, the commands that look at the same configuration take as well."""
    exit_of(name, "--help")

    out = capsys.readouterr().out
    for flag in ("--config", *cli._FLAGS):
        assert f"  {flag} " in out


def test_every_flag_sets_a_declared_key() -> None:
    """A flag is a short way to a key of the configuration, never something beside it."""
    assert {key for key, _, _ in cli._FLAGS.values()} <= {key for key, _ in declared_keys()}


def test_the_defaults_in_the_help_are_the_defaults() -> None:
    """Where the help of a flag names a default, it is the one of the configuration."""
    tree = msgspec.to_builtins(Config())
    named = 0
    for key, _, text in cli._FLAGS.values():
        found = re.search(r"\(default (.*)\)$", text)
        if found is None:
            continue
        value = tree
        for part in key.split("."):
            value = value[part]
        assert str(value) == found[1], key
        named += 1
    assert named >= 5


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["watch"],
        ["serve", "--upstream"],
        ["serve", "--no-such-flag"],
        ["serve", "extra"],
        ["serve", "--up", "http://127.0.0.1:8000"],
        ["healthcheck", "--timeout-s", "soon"],
        ["healthcheck", "--timeout-s", "-1"],
        ["healthcheck", "--timeout-s", "nan"],
    ],
)
def test_wrong_usage_is_exit_2_and_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown commands and flags, missing values, abbreviations: one line on stderr, nothing on stdout."""
    assert exit_of(*words) == cli.EXIT_USAGE

    captured = capsys.readouterr()
    assert captured.err.startswith("inferwatch: ")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    assert captured.out == ""


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["serve", "--bogus"], "unrecognized arguments: --bogus; see `inferwatch serve --help`"),
        (["report", "x", "y"], "unrecognized arguments: x y; see `inferwatch report --help`"),
        (["demo", "--rate", "0"], "argument --rate: expected a number above 0, got 0; see `inferwatch demo --help`"),
        (
            ["demo", "--against", "here"],
            "argument --against: expected `http://host:port` without a path, got `here`; see `inferwatch demo --help`",
        ),
        (["simulate", "--port", "x"], "simulate: port: expected `int`, got `str`"),
        (["simulate", "--config", "/nonexistent.yml"], "--config /nonexistent.yml: No such file or directory"),
    ],
)
def test_an_error_names_the_thing_and_where_help_is(
    words: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The help of that command, not of all."""
    assert exit_of(*words) == cli.EXIT_USAGE
    assert capsys.readouterr().err == f"inferwatch: {error}\n"


@pytest.mark.parametrize("name", ["serve", "check-config"])
@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--workers", "none"], "inferwatch: workers: expected `int`, got `str`\n"),
        (["--listen", "here"], "inferwatch: listen: expected `host:port`, got `here`\n"),
        (["--config", "/nonexistent.yml"], "inferwatch: --config /nonexistent.yml: No such file or directory\n"),
        (
            ["--config", str(TESTDATA / "invalid-unknown-section-key.yml")],
            "inferwatch: upstream: object contains unknown field `timeouts`\n",
        ),
    ],
)
def test_a_wrong_configuration_is_exit_2_and_one_line(
    name: str, flags: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command that reads the configuration answers a mistake in it the same way."""
    assert exit_of(name, *flags) == cli.EXIT_USAGE

    assert ("", error) == tuple(capsys.readouterr())


def test_the_environment_is_named_in_the_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable with a typo does not silently do nothing."""
    monkeypatch.setenv("INFERWATCH__UPSTREAM__ULR", "http://127.0.0.1:8000")

    assert exit_of("check-config") == cli.EXIT_USAGE

    expected = "inferwatch: environment INFERWATCH__UPSTREAM__ULR: there is no key `upstream.ulr`\n"
    assert expected == capsys.readouterr().err


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, fit for scripts."""
    assert exit_of("version") == cli.EXIT_OK

    assert f"inferwatch {__version__}\n" == capsys.readouterr().out


def test_check_config_prints_what_would_be_in_force(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    """Its output is a configuration file that gives the same configuration again."""
    assert exit_of("check-config", "--config", str(TESTDATA / "full.yml"), "--workers", "9") == cli.EXIT_OK
    sys.stdout.flush()
    printed = tmp_path / "printed.yml"
    printed.write_bytes(capfdbinary.readouterr().out)

    expected = config.load(str(TESTDATA / "full.yml"), environ={}, flags={"workers": 9})
    assert expected == config.load(str(printed), environ={})


def test_an_entry_that_the_catalogue_does_not_have_is_refused_by_its_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start and at a reload alike, before the collector hears of it."""
    monkeypatch.setenv("INFERWATCH__PRICES__COMPARE", "openai/gpt-5, openai/gpt-0")

    assert exit_of("check-config") == cli.EXIT_USAGE

    error = capsys.readouterr().err
    assert error.startswith("inferwatch: prices.compare[1]: `openai/gpt-0` is not in the catalogue; it has openai/")
    assert error.count("\n") == 1


def test_check_config_shows_no_password() -> None:
    """What people paste into tickets has no secrets in it."""
    done = run("check-config", "--upstream", "http://user:secret@127.0.0.1:8000")

    assert (done.returncode, done.stdout) == (cli.EXIT_USAGE, "")
    assert done.stderr.startswith("inferwatch: upstream.url: holds a user or a password")
    assert "secret" not in done.stderr


@pytest.mark.parametrize("words", [["check-config"], ["healthcheck"]])
def test_the_environment_names_the_file_and_the_flag_wins(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """INFERWATCH_CONFIG is `--config` for all commands, so that a container's health check asks where `serve` listens."""
    named, given = tmp_path / "named.yml", tmp_path / "given.yml"
    named.write_text("admin: nowhere\n")
    given.write_text("admin: neither\n")
    monkeypatch.setenv("INFERWATCH_CONFIG", str(named))

    assert exit_of(*words) == cli.EXIT_USAGE
    assert "got `nowhere`" in capsys.readouterr().err
    assert exit_of(*words, "--config", str(given)) == cli.EXIT_USAGE
    assert "got `neither`" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["healthcheck"], ["report", "--drift"], ["top", "--once"]])
def test_a_host_that_no_name_can_be(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Is one line; Python raises a ValueError, with what was to be sent in it."""
    assert exit_of(*words, "--admin", "a..b:9480") == cli.EXIT_RUNTIME
    told = capsys.readouterr().err
    assert "a..b:9480" in told
    assert told.count("\n") == 1


def test_a_command_that_is_interrupted_is_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is neither success nor a usage error."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "version", cli.COMMANDS["version"]._replace(run=interrupted))

    assert exit_of("version") == cli.EXIT_RUNTIME


def test_the_module_runs_as_the_command_does() -> None:
    """`python -m inferwatch` passes the exit code on."""
    good, bad = run("version"), run("serve", "--workers", "0")

    assert (cli.EXIT_OK, f"inferwatch {__version__}\n") == (good.returncode, good.stdout)
    assert (bad.returncode, bad.stderr) == (cli.EXIT_USAGE, "inferwatch: workers: expected `int` >= 1\n")


def test_the_command_line_imports_neither_servers_nor_the_collector() -> None:
    """`version`, `healthcheck` and the supervisor stay small: what a child needs, the child imports."""
    code = (
        "import sys, json, inferwatch.cli, inferwatch.supervisor; "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    loaded = set(json.loads(done.stdout))
    assert not loaded & {"aiohttp", "httptools", "prometheus_client", "structlog", "uvloop"}
    assert not loaded & {"inferwatch_collectors", "inferwatch_simulator"}


def test_a_file_to_start_from_and_a_schema(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Printed in place of the configuration; not both."""
    assert exit_of("check-config", "--print-default") == cli.EXIT_OK
    sys.stdout.flush()
    assert capfdbinary.readouterr().out.decode() == config_pages.template()
    assert exit_of("check-config", "--schema") == cli.EXIT_OK
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == config_pages.schema()
    assert exit_of("check-config", "--schema", "--print-default") == cli.EXIT_USAGE


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command is in the script; bash takes it."""
    assert exit_of("completion", shell) == cli.EXIT_OK
    script = capsys.readouterr().out
    assert all(name in script for name in cli.COMMANDS)
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("line", [line for command in cli.COMMANDS.values() for line, _ in command.examples])
def test_examples_can_be_typed(line: str) -> None:
    """What `--help` shows parses."""
    program, *words = line.split()
    assert program == "inferwatch"
    cli.build_parser(words[0]).parse_args(words)


def test_every_command_has_an_example() -> None:
    """But the one that takes no flags."""
    assert [name for name, command in cli.COMMANDS.items() if not command.examples] == ["version"]
