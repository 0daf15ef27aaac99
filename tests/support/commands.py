"""The commands that our pages tell people to type, as data: taken from the pages, and what cannot be run beside them.

A page's commands are its fenced blocks of shell and what stands in back-ticks and begins with a program's name. All are
run, in the order of the page, in one folder, as a reader would (`tests/services/test_commands.py`). One that cannot be
is in ELSEWHERE, with the reason and the test that holds it. A new page needs nothing but to be written.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from stack import MODEL

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = tuple(
    sorted(
        path
        for pattern in ("*.md", "docs/**/*.md", "alerts/runbooks/*.md", "bench/*.md")
        for path in ROOT.glob(pattern)
        if path.name != "CHANGELOG.md"
    )
)

SHELL: Final = frozenset({"sh", "bash", "shell", "console"})

# A word of these and another one in back-ticks is a command; so is a line of an untagged block that begins with one.
PROGRAMS: Final = (
    *(
        "amtool",
        "apt-get",
        "cat",
        "chmod",
        "curl",
        "df",
        "docker",
        "du",
        "git",
        "grep",
        "helm",
        "inferwatch",
        "install",
    ),
    *("iostat", "journalctl", "kill", "kubectl", "make", "nvidia-smi", "openssl", "pip", "prometheus", "promtool"),
    *("python", "python3", "sqlite3", "ss", "ssh", "systemctl", "systemd-analyze", "timeout", "uv", "vllm"),
)

# What a reader puts in, and what stands there when a test does.
PLACEHOLDERS: Final = {
    "http://PROMETHEUS:9090": "$PROMETHEUS",
    "http://127.0.0.1:9090": "$PROMETHEUS",
    "http://ALERTMANAGER:9093": "$ALERTMANAGER",
    "http://HOST:9480": "$ADMIN",
    "http://127.0.0.1:9480": "$ADMIN",
    "http://localhost:9480": "$ADMIN",
    "localhost:9480": "$ADMIN",
    "http://HOST:8080": "$DATA",
    "http://127.0.0.1:8080": "$DATA",
    "http://ENGINE:8000": "$ENGINE",
    "http://127.0.0.1:8000": "$ENGINE",
    "http://OTLP:4318": "$ENGINE",  # which answers 404: the command is seen to work, the endpoint is another matter
    **{f"http://127.0.0.1:{port}": "$ENGINE" for port in (30000, 3000, 8081, 11434)},
    "https://api.anthropic.com": "$ENGINE",
    "https://api.openai.com": "$ENGINE",
    "YESTERDAY": '"$(date -u -d yesterday +%F)"',
    "STATE_DIR": "$STATE",
    "/var/lib/inferwatch": "$STATE",
    "=MODEL": "=$MODEL",
    '"MODEL"': f'"{MODEL}"',
    "--engine NAME": "--engine tgi",
    "=llama": "=$MODEL",
    "=TENANT": "=anonymous",
    "=acme": "=anonymous",
    "--config FILE": "--config inferwatch.yml",
    "--config /etc/inferwatch/config.yaml": "--config inferwatch.yml",
}


class Elsewhere(NamedTuple):
    """Why commands are not run with their page. `test` is `file::test`, or `file`, under tests/; "" if there is none."""

    pattern: str  # of the whole command
    reason: str
    test: str = ""


_COMPOSE: Final = "deploy/test_compose.py::test_the_demo_has_traffic_and_prometheus_sees_it"
_CHART: Final = "deploy/test_kubernetes.py::test_what_helm_makes_is_valid"

ELSEWHERE: Final = (
    Elsewhere(r"make (test|test-\w+|bench|check|docs|manifests|lock)\b.*", "it is what runs this, or changes the tree"),
    Elsewhere(r"make demo\b.*", "the same as `inferwatch demo`", "simulator/test_demo.py"),
    Elsewhere(r"docker compose (--profile demo )?up.*", "needs a Docker daemon", _COMPOSE),
    Elsewhere(
        r"docker compose (--profile \w+ )?(up|config|logs|ps|exec|down).*",
        "needs images that cannot be pulled here; the file is checked",
        "deploy/test_compose.py::test_each_profile_has_its_engine_and_its_sidecar",
    ),
    Elsewhere(r"docker build .*", "needs a Docker daemon", "deploy/conftest.py"),
    Elsewhere(
        r"docker (run|exec|save|load)\b.*",
        "needs a Docker daemon",
        "deploy/test_image.py::test_it_serves_with_a_read_only_file_system",
    ),
    Elsewhere(r"helm lint .*", "needs helm", "deploy/test_kubernetes.py::test_helm_lint_has_no_complaint"),
    Elsewhere(r"helm (install|upgrade|template) .*", "needs a cluster; what it would install is checked", _CHART),
    Elsewhere(r"kubectl apply .*", "needs a cluster", "deploy/test_kubernetes.py::test_the_plain_manifests_are_valid"),
    Elsewhere(r"kubectl .*", "needs a cluster"),
    Elsewhere(r"(uv build|pip download|pip install --no-index) .*", "builds wheels", "packaging/test_wheel.py"),
    Elsewhere(r".*pip install .*", "installs from an index; names and extras are checked", "docs/test_commands.py"),
    Elsewhere(r"systemctl (status|restart) (ENGINE|inferwatch).*", "needs systemd", "deploy/test_systemd.py"),
    Elsewhere(r"systemd-analyze .*", "needs systemd", "deploy/test_systemd.py::test_systemd_has_no_complaint"),
    Elsewhere(r"journalctl .*", "needs a journal; the log's words are held by the tests of who writes them"),
    Elsewhere(r"(dmesg|iostat|top -b|ss -tnp|timeout 10 nvidia-smi|nvidia-smi)\b.*", "the host's own tools"),
    Elsewhere(r"python -m bench\S*.*", "takes long, or a GPU; its figures are in bench/"),
    Elsewhere(r"inferwatch doctor --capture .*", "needs a GPU", "gpu/test_gpu_capture.py"),
    Elsewhere(r"inferwatch doctor --privacy .*", "needs a text and keys", "privacy"),
    Elsewhere(r"inferwatch top( --admin \S+)?( --view \w+)?", "needs a terminal", "services/test_top_in_tmux.py"),
    Elsewhere(
        r"(vllm serve|text-generation-launcher|python -m sglang\.launch_server|trtllm-serve|tritonserver|llama-server|"
        r"ollama serve|transformers serve)\b.*",
        "starts an engine; the simulator stands in for each, and a real vLLM in tests/engines",
        "conformance/test_personas.py",
    ),
    Elsewhere(r"cp \.env\.example \.env", "the file is checked", "deploy/test_compose.py"),
    Elsewhere(r"(python3 -m venv|install -[Dm]) .*(/opt|/etc|~)/.*", "into the system", "deploy/test_systemd.py"),
    Elsewhere(r"/opt/inferwatch/bin/inferwatch .*", "as above", "deploy/test_systemd.py"),
    Elsewhere(r"systemctl enable .*", "needs systemd", "deploy/test_systemd.py"),
    Elsewhere(r"redis-cli .*", "needs the hosts' Redis", "services/test_shared_budgets_hold.py"),
    Elsewhere(r"kill -9", "what is told about, nothing to type"),
    Elsewhere(r"(promtool check|amtool check-config).*", "checked with our files", "services/test_promtool.py"),
)


class Command(NamedTuple):
    """One command of a page."""

    page: Path
    text: str

    @property
    def elsewhere(self) -> Elsewhere | None:
        """Why it is not run, None if it is."""
        bare = self.text.split("   #", 1)[0].strip()
        return next((each for each in ELSEWHERE if re.fullmatch(each.pattern, bare, re.DOTALL)), None)

    @property
    def script(self) -> str:
        """What is run: placeholders are put in, a prompt is taken off."""
        text = self.text
        for placeholder, value in PLACEHOLDERS.items():
            text = text.replace(placeholder, value)
        # In single quotes nothing is put in; a value that has a placeholder in it goes into double ones.
        return re.sub(r"'([^'\n]*\$(?:ADMIN|DATA|ENGINE|PROMETHEUS|ALERTMANAGER)[^'\n]*)'", r'"\1"', text)


def commands(page: Path) -> list[Command]:
    """Return the commands of a page, those in blocks first."""
    text = page.read_text("utf-8")
    found = [
        Command(page, line) for language, block in blocks(text) if language in SHELL for line in _logical_lines(block)
    ]
    plain = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    known = {command.text for command in found}
    for inline in re.findall(r"`([^`\n]+)`", plain):
        first, _, rest = inline.partition(" ")
        if first in PROGRAMS and rest and "…" not in inline and inline not in known:
            known.add(inline)
            found.append(Command(page, inline))
    return found


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield (language, content) of each fenced block, without the fence's indent."""
    for indent, language, content in re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        yield language, re.sub(f"^{indent}", "", content, flags=re.MULTILINE)


def _logical_lines(block: str) -> Iterator[str]:
    """Yield a block's commands: a line, with those that it is continued on and the document that it is fed."""
    lines = iter(block.splitlines())
    for line in lines:
        text = line.removeprefix("$ ")
        while text.endswith("\\"):
            text += "\n" + next(lines, "")
        if fed := re.search(r"<<-?\s*'?(\w+)'?", text):
            for more in lines:
                text += "\n" + more
                if more.strip() == fed[1]:
                    break
        if text.strip() and not text.lstrip().startswith("#"):
            yield text
