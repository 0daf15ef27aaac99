"""The commands in our pages, as far as that can be seen without running them. Run they are in tests/services."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from commands import ELSEWHERE, PAGES, PROGRAMS, ROOT, SHELL, Command, Elsewhere, blocks, commands

from inferwatch import cli, config

EVERY = [command for page in PAGES for command in commands(page)]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
SECTIONS = set(config.Config.__struct_fields__)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def test_a_page_is_taken_apart(tmp_path: Path) -> None:
    """Blocks by line, with continuations and documents; back-ticks by their first word; nothing twice."""
    page = tmp_path / "page.md"
    page.write_text(
        "Run `inferwatch serve`, not `serve x` or `inferwatch`:\n\n1. so\n\n   ```sh\n   # a remark\n   $ curl a \\\n"
        "     b\n   cat > f <<'EOF'\n   x: 1\n   EOF\n   ```\n\n```yaml\nmake: no\n```\n\n`curl a`, `inferwatch serve`\n"
    )
    expected = ["curl a \\\n  b", "cat > f <<'EOF'\nx: 1\nEOF", "inferwatch serve", "curl a"]
    assert [command.text for command in commands(page)] == expected


def test_what_is_put_in() -> None:
    """Addresses become variables, also out of single quotes."""
    command = Command(ROOT, "curl -sS 'http://HOST:9480/drift?model=MODEL'")
    assert command.script == 'curl -sS "$ADMIN/drift?model=$MODEL"'


@each_page
def test_commands_are_in_tagged_blocks(page: Path) -> None:
    """A block without a language holds no command: it would not be run."""
    for language, content in blocks(page.read_text("utf-8")):
        if not language:
            assert [line for line in content.splitlines() if line.split(" ")[0] in PROGRAMS] == []


@each_page
def test_commands_are_shell(page: Path) -> None:
    """bash can read each."""
    for command in commands(page):
        done = subprocess.run(["bash", "-n"], input=command.script.encode(), capture_output=True, check=False)
        assert done.returncode == 0, (command.text, done.stderr)


@pytest.mark.parametrize("each", ELSEWHERE, ids=lambda each: each.pattern)
def test_what_is_not_run_is_still_there_and_held_elsewhere(each: Elsewhere) -> None:
    """No entry is left over, and the test that it names exists."""
    file, _, name = each.test.partition("::")
    if name:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / file).read_text("utf-8"), re.MULTILINE)
    elif file:
        assert (ROOT / "tests" / file).exists()
    assert [command.text for command in EVERY if command.elsewhere is each]


def test_what_is_installed_has_these_extras() -> None:
    """`pip install 'inferwatch[…]'` names extras of ours, or a package of our own requirements."""
    for command in EVERY:
        for names in re.findall(r"inferwatch\[([\w,-]+)\]", command.text):
            assert set(names.split(",")) <= set(EXTRAS), command.text
        for file in re.findall(r"-r (\S+)", command.text):
            assert (ROOT / file).exists(), command.text


def lost_in(texts: list[str]) -> list[str]:
    """Return the calls of `inferwatch` that no shell would find: behind a virtual environment that was made, and before
    a line that puts it on the PATH."""
    found, made = [], ""
    for text in texts:
        if venv := re.match(r"python3 -m venv (\S+)", text):
            made = venv[1]
        elif made and re.match(r"PATH=.*" + re.escape(made.removeprefix("~")) + "/bin", text):
            made = ""
        elif made and text.startswith("inferwatch "):
            found.append(text)
    return found


def test_calls_that_would_not_be_found_are_seen() -> None:
    """By the order of the page; a path in full needs nothing."""
    venv, call, path = "python3 -m venv ~/here", "inferwatch serve", 'PATH="$HOME/here/bin:$PATH"'
    assert lost_in([venv, call, path, call]) == [call]
    assert lost_in([call, venv, path, call, "python3 -m venv /opt/there", "/opt/there/bin/inferwatch serve"]) == []


@each_page
def test_what_is_installed_is_found(page: Path) -> None:
    """A page that makes a virtual environment puts its commands on the PATH, or calls them by their path."""
    shell = [content for language, content in blocks(page.read_text("utf-8")) if language in SHELL]
    assert lost_in([line for content in shell for line in content.splitlines()]) == []


def test_every_command_of_ours_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """The command line takes the flags of each `inferwatch …`, also of those that are not run."""
    parser = cli.build_parser()
    for command in EVERY:
        for line in re.findall(r"(?:^|[;&|] *)inferwatch ((?:--?)?[a-z][^|;&\n#]*)", command.text):
            words = [word.strip("'\"") for word in re.sub(r'"\$\([^)]*\)"', "2026-01-01", line).split()]
            if words[0].startswith("-") or ">" in words:
                continue
            fault = ""
            try:
                parser.parse_args(words)
            except SystemExit as end:
                fault = capsys.readouterr().err if end.code else ""
            assert fault == "", (command.page.name, line)


@each_page
def test_settings_that_are_shown_are_a_configuration(page: Path, tmp_path: Path) -> None:
    """A block of YAML whose keys are ours is taken as it is, but for the files that it names."""
    for language, content in blocks(page.read_text("utf-8")):
        if language != "yaml":
            continue
        tree = yaml.safe_load(content)
        if not isinstance(tree, dict) or not tree.keys() <= SECTIONS:
            continue
        for named in re.findall(r"_file: +([^\s#]+)", content):
            (tmp_path / "file").write_text("k1 0123456789abcdef0123456789abcdef0123456789abcdef\n")
            content = content.replace(named, str(tmp_path / "file"))
        content = re.sub(r"^.*tls_ca_file:.*\n", "", content, flags=re.MULTILINE)
        (tmp_path / "inferwatch.yml").write_text(content)
        config.load(str(tmp_path / "inferwatch.yml"), environ={})
