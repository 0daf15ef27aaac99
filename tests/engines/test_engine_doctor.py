"""`inferwatch doctor` before a real vLLM: it is known, it counts, and nothing is wrong."""

import json
import subprocess
import sys
from pathlib import Path

from engine_process import Engine, free_port


def test_nothing_is_wrong_with_a_healthy_vllm(engine: Engine, tmp_path: Path) -> None:
    """All checks; notes at most, but for this machine's own limits. One token was asked for, and counted while it ran."""
    flags = ["--upstream", engine.url, "--state-dir", str(tmp_path / "state"), "--json"]
    flags += ["--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}"]
    done = subprocess.run(
        [sys.executable, "-m", "inferwatch", "doctor", *flags], capture_output=True, text=True, timeout=60, check=False
    )
    found = json.loads(done.stdout)["findings"]
    assert [each for each in found if each["level"] in ("warning", "fault") and each["check"] != "limits"] == []
    assert done.returncode == 0
    told = {(each["check"], each["level"]): each["what"] for each in found}
    assert told["engine", "ok"].startswith("vLLM ")
    assert told["usage", "ok"] == "streams carry running token counts"
    assert ("engine metrics", "ok") in told
