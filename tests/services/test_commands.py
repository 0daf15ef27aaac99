"""Every command in our pages, run: a reader's way through each page, in a folder of his own, before a real Inferwatch.

Beside it run a simulated engine, Prometheus with our rules and Alertmanager; addresses in the pages become theirs
(`tests/support/commands.py`). `inferwatch serve` and its like are started, seen to be ready, and stopped.
"""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import PAGES, ROOT, blocks, commands
from monitoring import Alertmanager, Prometheus, closing
from stack import MODEL, Stack, chat, client, running, send, wait_until

CONFIG = """
cost: {hourly_dollars: 3.5}
gpu: {source: none}
prices:
  rules: [{input: 1, output: 2}]
"""

# In place of `inferwatch`: what runs until it is stopped is stopped when it is ready, and must then end well. It has a
# folder and ports of its own; everything else sees the Inferwatch that runs already.
SHIM = """#!{python}
import os, re, signal, subprocess, sys, tempfile, time, urllib.request

words = sys.argv[1:]
command = [sys.executable, "-m", "inferwatch", *words]
if not words or words[0] not in ("serve", "simulate", "demo") or "--help" in words:
    os.execv(sys.executable, command)
if words[0] == "demo":
    command += ["--seconds", "2"]
for flag in ("--listen", "--admin", "--state-dir"):
    if flag in command:
        at = command.index(flag)
        del command[at : at + 2]
with tempfile.TemporaryDirectory() as folder:
    environ = dict(os.environ, INFERWATCH__STATE_DIR=folder)
    environ |= dict(INFERWATCH__LISTEN="127.0.0.1:0", INFERWATCH__ADMIN="127.0.0.1:0")
    if words[0] == "simulate":
        command += ["--port", "0"]
    with open(os.path.join(folder, "log"), "w+") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        said = ""
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            said = open(log.name).read()
            if re.search(r"ready|listening|http://127", said) and words[0] != "demo":
                process.send_signal(signal.SIGTERM)
                break
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            code = "none within a minute"
        sys.stderr.write(open(log.name).read())
    sys.exit(0 if code in (0, -signal.SIGTERM) and "ready" in said or words[0] != "serve" and code == 0 else 1)
"""


@pytest.fixture(scope="module", name="environ")
def _environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("commands")
    (folder / "inferwatch.yml").write_text(CONFIG)
    prometheus, alertmanager = Prometheus(folder), Alertmanager(folder)
    with running(folder, "--config", str(folder / "inferwatch.yml")) as stack, closing(prometheus, alertmanager):
        alertmanager.start({"route": {"receiver": "none"}, "receivers": [{"name": "none"}]})
        watched = {"host": f"127.0.0.1:{stack.admin_port}"}
        prometheus.start(watched, alertmanager=f"127.0.0.1:{alertmanager.port}")
        asyncio.run(_ask(stack))
        wait_until(lambda: bool(prometheus.query("inferwatch_build_info")), "a scrape", 30)
        wait_until(lambda: bool(alertmanager.get("/api/v2/alerts")), "the watchdog", 30)
        programs = folder / "bin"
        programs.mkdir()
        (stack.folder / "state" / "spool").mkdir(exist_ok=True)  # there is one while the alert fires
        (programs / "inferwatch").write_text(SHIM.format(python=sys.executable))
        (programs / "inferwatch").chmod(0o755)
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith("INFERWATCH")},
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "INFERWATCH__LISTEN": f"127.0.0.1:{stack.port}",
            "INFERWATCH__ADMIN": f"127.0.0.1:{stack.admin_port}",
            "INFERWATCH__STATE_DIR": str(stack.folder / "state"),
            "INFERWATCH__UPSTREAM__URL": stack.engine,
            "INFERWATCH__GPU__SOURCE": "none",
            "TOKEN": "0123456789abcdef",  # of the admin port, which asks for none here
            "PROMETHEUS": prometheus.url,
            "ALERTMANAGER": alertmanager.url,
            "MODEL": MODEL,
            "ADMIN": stack.admin,
            "DATA": stack.url,
            "ENGINE": stack.engine,
            "STATE": str(stack.folder / "state"),
        }


async def _ask(stack: Stack) -> None:
    async with client() as session:
        for _ in range(3):
            await send(session, stack.url, chat())
    stack.settled(3)


@pytest.mark.timeout(400)  # a page that starts each engine's Inferwatch, on a busy machine
@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_commands_of_a_page(page: Path, environ: dict[str, str], tmp_path: Path) -> None:
    """Each ends with 0, in the order of the page; files that the page shows are there under the name that it gives."""
    (tmp_path / "inferwatch.yml").write_text(CONFIG)
    for language, content in blocks(page.read_text("utf-8")):
        first = content.split("\n", 1)[0]
        if language == "yaml" and first.startswith("# ") and first.endswith(".yml"):
            (tmp_path / first.removeprefix("# ")).write_text(content)
    for command in commands(page):
        if command.elsewhere is not None:
            continue
        started_s = time.monotonic()
        # `head` closes the pipe before what feeds it has ended; a `grep` that finds nothing has looked all the same.
        strict = "" if "| head" in command.script else "set -o pipefail\n"
        fine = (0, 1) if re.search(r"\| *grep\b[^|]*$", command.script) else (0,)
        script = f"set -eu\n{strict}{command.script}\n"
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=90, check=False
        )
        told = (
            f"{command.text}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}\nafter {time.monotonic() - started_s:.1f} s"
        )
        assert done.returncode in fine, told
