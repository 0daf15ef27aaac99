"""Who takes part: how each is started, which of its processes does what, and the load it can carry.

All get one worker, keep-alive to the engine, no access log, and otherwise their defaults.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

WORK: Final = Path(__file__).parent / ".work"

NGINX_CONF = """
daemon off;
worker_processes 1;
error_log stderr warn;
pid nginx.pid;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  keepalive_requests 1000000;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 2048; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""

# JSON is YAML; no database, no keys, no callbacks: the proxy's least work per request.
LITELLM_CONF = """
{{"model_list": [{{"model_name": "bench", "litellm_params":
  {{"model": "openai/bench", "api_base": "http://127.0.0.1:{engine}/v1", "api_key": "sk-engine"}}}}],
 "litellm_settings": {{"telemetry": false, "num_retries": 0}}}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender lives for one start: its port, the engine's, two spare ports, an empty folder."""

    port: int
    engine: int
    spare: tuple[int, int]
    folder: Path


@dataclass(frozen=True, slots=True)
class Burden:
    """The load a contender is measured under. One that is fifty times as slow gets what it can carry."""

    streams: int = 100
    events_per_s: float = 50.0
    ramp_s: float = 0.5
    plain_per_s: float = 1000.0
    one_by_one: int = 1000
    open_streams: int = 2000
    open_ramp_s: float = 4.0
    stretch: float = 1.0  # windows are so much longer


LIGHT: Final = Burden(
    streams=20,
    events_per_s=10.0,
    ramp_s=1.0,
    plain_per_s=10.0,
    one_by_one=40,
    open_streams=200,
    open_ramp_s=8.0,
    stretch=1.5,
)


@dataclass(frozen=True, slots=True)
class Contender:
    """One proxy. `exact`: it hands a reply's bytes on as they are. `roles`: (pattern of a command line, name) pairs."""

    key: str
    title: str
    version: str
    command: Callable[[Place], list[str]]
    exact: bool = True
    burden: Burden = field(default_factory=Burden)
    roles: tuple[tuple[str, str], ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    start_timeout_s: float = 30.0

    def role(self, command: str) -> str:
        """What the process of this command line does."""
        return next((role for pattern, role in self.roles if re.search(pattern, command)), "other")


class UnavailableError(RuntimeError):
    """The contender is not installed; the message says what to do."""


def find(key: str) -> Contender:
    """The contender of that name; UnavailableError when it is not installed."""
    return {"nginx": _nginx, "vllm-router": _router, "pipe": _pipe, "litellm": _litellm, "ours": _ours}[key]()


def custom(spec: str) -> Contender:
    """A contender given as `name=command`, with {port} and {engine} in the command."""
    name, _, command = spec.partition("=")

    def start(place: Place) -> list[str]:
        return command.format(port=place.port, engine=place.engine).split()

    return Contender(name, name, "", start, roles=(("", "all"),))


def _nginx() -> Contender:
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if binary is None:
        raise UnavailableError("install the package nginx")
    answer = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True).stderr

    def start(place: Place) -> list[str]:
        conf = place.folder / "nginx.conf"
        conf.write_text(NGINX_CONF.format(port=place.port, engine=place.engine))
        return [binary, "-p", str(place.folder), "-c", str(conf)]

    roles = (("nginx: worker", "worker"), ("nginx: master", "master"))
    return Contender("nginx", "nginx", answer.strip().rpartition("/")[2], start, roles=roles)


def _router() -> Contender:
    venv = WORK / "venv-router"

    def start(place: Place) -> list[str]:
        return [
            str(venv / "bin" / "vllm-router"),
            *("--host", "127.0.0.1", "--port", str(place.port), "--prometheus-port", str(place.spare[0])),
            *("--worker-urls", f"http://127.0.0.1:{place.engine}"),
            *("--policy", "round_robin", "--log-level", "warning"),
        ]

    return Contender(
        "vllm-router", "vllm-router", _distribution(venv, "vllm-router").version, start, roles=(("", "router"),)
    )


def _pipe() -> Contender:
    def start(place: Place) -> list[str]:
        return [sys.executable, str(Path(__file__).parent / "pipe.py"), str(place.port), str(place.engine)]

    return Contender("pipe", "bare uvloop pipe", "", start, roles=(("", "pipe"),))


def _litellm() -> Contender:
    venv = WORK / "venv-litellm"

    def start(place: Place) -> list[str]:
        conf = place.folder / "litellm.yaml"
        conf.write_text(LITELLM_CONF.format(engine=place.engine))
        return [
            str(venv / "bin" / "litellm"),
            *("--config", str(conf), "--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1"),
        ]

    return Contender(
        "litellm",
        "LiteLLM",
        _distribution(venv, "litellm").version,
        start,
        exact=False,
        burden=LIGHT,
        roles=(("", "worker"),),
        env={
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
        start_timeout_s=120.0,
    )


def _ours() -> Contender:
    command = Path(sys.executable).parent / "inferwatch"
    own = _distribution(Path(sys.prefix), "inferwatch")

    def start(place: Place) -> list[str]:
        state = place.folder / "state"
        state.mkdir()
        return [
            str(command),
            *("serve", "--upstream", f"http://127.0.0.1:{place.engine}"),
            *("--listen", f"127.0.0.1:{place.port}", "--admin", f"127.0.0.1:{place.spare[0]}"),
            *("--workers", "1", "--state-dir", str(state)),
        ]

    roles = ((r"inferwatch\.relay", "relay"), (r"inferwatch_collectors", "collector"), (r"\bserve\b", "supervisor"))
    return Contender("ours", "Inferwatch", own.version, start, roles=roles)


def _distribution(venv: Path, name: str) -> Distribution:
    for site in venv.glob("lib/python3*/site-packages"):
        for distribution in distributions(path=[str(site)]):
            if distribution.metadata["Name"] == name:
                return distribution
    raise UnavailableError("run bench/run.sh, which installs it")
