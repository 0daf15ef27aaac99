"""Start and stop the two processes of this suite: a real vLLM on the CPU, and Inferwatch in front of it.

Standard library only, so that `capture.py` runs with any interpreter. Every process leads a group of its own: vLLM's
engine core is a child of its API server and must go down with it. A session of its own would do the same, but Linux
shares the processor out by session (autogroup), and beside a vLLM that keeps all cores busy a quiet session was seen to
wait four seconds for its turn; that would be measured as the proxy's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-vllm"
MODEL = VENV / "tiny-model"
LLAMACPP = ROOT / ".venv-llamacpp"
VLLM_START_LIMIT_S = 600.0  # a cold page cache and two busy cores; 40 s is usual
LLAMACPP_START_LIMIT_S = 60.0  # a second, alone on the machine
INFERWATCH_START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0  # vLLM joins its engine core before it exits
PROGRESS_S = 10.0
POLL_S = 0.25
LOG_TAIL_LINES = 40


Figures = list[tuple[str, str]]  # what was measured, and its value as text


@dataclass(frozen=True)
class Engine:
    """A vLLM that serves the tiny model."""

    url: str


@dataclass(frozen=True)
class Proxy:
    """What stands in front of the engine. `admin_url` is None for a proxy that keeps no books."""

    url: str
    admin_url: str | None


class StartError(RuntimeError):
    """A process ended, or did not answer in time; the message ends with the tail of its log."""


def is_provisioned() -> bool:
    """Whether `provision` has run to its end."""
    return (VENV / ".provisioned").is_file()


def free_port() -> int:
    """A TCP port on the loopback that nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running_vllm(*flags: str, model: Path = MODEL, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve the tiny model, or another, as `tiny` with vLLM's default settings plus `flags`; yields the base URL."""
    port = free_port()
    command = [
        str(VENV / "bin/python"), "-m", "vllm.entrypoints.openai.api_server",
        # Relative, so that what vLLM tells about the model (`root` in /v1/models) is the same on every machine.
        "--model", str(model.relative_to(ROOT)) if model.is_relative_to(ROOT) else str(model), "--served-model-name", "tiny",
        "--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1", "--port", str(port), *flags,
    ]  # fmt: skip
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default takes half of the memory
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        # Chunked answers are built in the event loop: two OpenMP threads spinning on two cores would starve it.
        "OMP_WAIT_POLICY": "PASSIVE",
        **(variables or {}),
    }
    base = f"http://127.0.0.1:{port}"
    with _running("vLLM", command, environment, f"{base}/health", VLLM_START_LIMIT_S):
        yield base


@contextlib.contextmanager
def running_transformers() -> Iterator[tuple[str, str]]:
    """Serve the tiny model with Transformers' own server; yields (base URL, the model's name there)."""
    port = free_port()
    name = str(MODEL.relative_to(ROOT))
    command = [
        *(str(VENV / "bin/python"), "-m", "transformers.cli.transformers", "serve", name),
        *("--host", "127.0.0.1", "--port", str(port), "--device", "cpu"),
    ]
    environment = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    base = f"http://127.0.0.1:{port}"
    with _running("Transformers serve", command, environment, f"{base}/health", VLLM_START_LIMIT_S):
        yield base, name


@contextlib.contextmanager
def running_llamacpp(*flags: str) -> Iterator[str]:
    """Serve the tiny model with llama.cpp's own server plus `flags`; yields the base URL."""
    port = free_port()
    command = [
        *(str(LLAMACPP / "llama-server"), "--model", str(LLAMACPP / "tiny.gguf"), "--alias", "tiny", "--metrics"),
        *("--host", "127.0.0.1", "--port", str(port), *flags),
    ]
    base = f"http://127.0.0.1:{port}"
    with _running("llama.cpp server", command, {}, f"{base}/health", LLAMACPP_START_LIMIT_S):
        yield base


@contextlib.contextmanager
def running_inferwatch(
    upstream: str, state_dir: Path, variables: Mapping[str, str] | None = None, *, config: Path | None = None
) -> Iterator[tuple[str, str]]:
    """Put Inferwatch in front of `upstream`, or as a file says; yields (data URL, admin URL)."""
    listen, admin = free_port(), free_port()
    how = ("--config", str(config)) if config else ("--upstream", upstream)
    command = [
        str(ROOT / ".venv/bin/inferwatch"), "serve", *how, "--state-dir", str(state_dir),
        "--listen", f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{admin}",
    ]  # fmt: skip
    admin_url = f"http://127.0.0.1:{admin}"
    with _running("Inferwatch", command, variables or {}, f"{admin_url}/readyz", INFERWATCH_START_LIMIT_S):
        yield f"http://127.0.0.1:{listen}", admin_url


@contextlib.contextmanager
def _running(
    name: str, command: Sequence[str], environment: Mapping[str, str], probe: str, limit_s: float
) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log, process_group=0
        )
        try:
            _await_answer(name, process, probe, limit_s)
            yield
        except StartError as error:
            log.seek(0)
            tail = b"\n".join(log.read().splitlines()[-LOG_TAIL_LINES:]).decode(errors="replace")
            raise StartError(f"{error}; the end of its log:\n{tail}") from None
        finally:
            _stop(process)


def _await_answer(name: str, process: subprocess.Popen[bytes], probe: str, limit_s: float) -> None:
    begin = last_word = time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(probe, timeout=5):
            return
        now = time.monotonic()
        if now - begin > limit_s:
            raise StartError(f"{name} did not answer {probe} within {limit_s:.0f} s")
        if now - last_word > PROGRESS_S:
            last_word = now
            print(f"  waiting for {name}: {now - begin:.0f} s", file=sys.stderr, flush=True)
        time.sleep(POLL_S)
    raise StartError(f"{name} ended with {process.returncode} while starting")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT_S)
    # The leader may be gone while a child lingers; the group is ours alone, so this cannot hit anybody else.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def other_weights(folder: Path, seed: int) -> Path:
    """Write the tiny model with the weights of another seed into `folder`; returns it."""
    script = f"""
import shutil, torch
from transformers import Qwen2Config, Qwen2ForCausalLM
torch.manual_seed({seed})
model = Qwen2ForCausalLM(Qwen2Config.from_pretrained({str(MODEL)!r}))
shutil.copytree({str(MODEL)!r}, {str(folder)!r})
model.generation_config.eos_token_id = model.config.eos_token_id
model.save_pretrained({str(folder)!r})
"""
    subprocess.run([str(VENV / "bin/python"), "-c", script], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return folder
