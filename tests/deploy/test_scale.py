"""More hosts than one Prometheus takes: the configurations are valid, shards share the hosts, and VictoriaMetrics, written to
by a real Prometheus, holds what the real sidecar said."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stack
import yaml
from machine import ROOT, run, say

CONFIGS = ROOT / "deploy/prometheus"
AGENTS = sorted(CONFIGS.glob("agent-*.yml"))
PAGE = ROOT / "docs/topics/scale.md"

each_agent = pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.stem)


@contextlib.contextmanager
def process(*command: str | Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server for a while; what it says goes to `log`."""
    with log.open("ab") as file:
        running = subprocess.Popen([str(word) for word in command], stdout=file, stderr=file)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.loads(reply.read())


@each_agent
def test_the_agents_configuration_is_valid(path: Path) -> None:
    """For Prometheus, and what is scraped for VictoriaMetrics' own agent, too."""
    run("promtool", "check", "config", "--syntax-only", "--agent", path)
    run(
        "vmagent", "-dryRun", f"-promscrape.config={path}", "-promscrape.config.strictParse=false", "-remoteWrite.url=x"
    )


def test_the_agents_differ_only_in_where_they_write() -> None:
    """One way to scrape, three stores."""
    loaded = [yaml.safe_load(path.read_text()) for path in AGENTS]

    assert len(loaded) == 3
    assert [config["scrape_configs"] for config in loaded] == [loaded[0]["scrape_configs"]] * 3
    assert len({config["remote_write"][0]["url"] for config in loaded}) == 3


def test_the_rules_are_valid_for_victoriametrics(tmp_path: Path) -> None:
    """vmalert takes the same files as Prometheus, but for `keep_firing_for`, which Debian's (1.79) is too old to know."""
    for path in (ROOT / "alerts/rules").glob("*.yml"):
        (tmp_path / path.name).write_text(re.sub(r"^ *keep_firing_for: .*\n", "", path.read_text(), flags=re.MULTILINE))

    run("vmalert", "-dryRun", *(f"-rule={path}" for path in sorted(tmp_path.glob("*.yml"))))


@pytest.mark.parametrize("path", sorted((ROOT / "deploy/otel-collector").glob("*.yml")), ids=lambda path: path.stem)
def test_the_collectors_pipelines_hang_together(path: Path) -> None:
    """Each part that a pipeline names is declared, each that is declared is used; memory is limited first."""
    config = yaml.safe_load(path.read_text())
    pipelines = config["service"]["pipelines"]

    for kind in ("receivers", "processors", "exporters"):
        assert {name for pipeline in pipelines.values() for name in pipeline[kind]} == set(config[kind]), kind
    assert set(config["service"].get("extensions", [])) == set(config.get("extensions", {}))
    for name, pipeline in pipelines.items():
        assert pipeline["processors"][0] == "memory_limiter", name


def agent_config(folder: Path, store: str, **scrape: Any) -> Path:
    """The shipped configuration for VictoriaMetrics, with addresses and intervals of a test."""
    config = yaml.safe_load((CONFIGS / "agent-victoriametrics.yml").read_text())
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config["remote_write"][0]["url"] = f"{store}/api/v1/write"
    config["scrape_configs"][0]["relabel_configs"][0]["modulus"] = scrape.get("shards", 1)
    config["scrape_configs"][0]["relabel_configs"][1]["regex"] = str(scrape.get("shard", 0))
    (folder / "hosts").mkdir(exist_ok=True, parents=True)
    (folder / "hosts/all.yml").write_text(yaml.safe_dump([{"targets": scrape["targets"]}]))
    (folder / "agent.yml").write_text(yaml.safe_dump(config))
    return folder / "agent.yml"


@contextlib.contextmanager
def agent(config: Path) -> Iterator[str]:
    """A Prometheus in agent mode, ready."""
    (port,) = stack.free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with process(
        "prometheus", "--enable-feature=agent", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.agent.path={config.parent}/wal", "--storage.remote.flush-deadline=1s", log=config.parent / "log",
    ):  # fmt: skip
        stack.wait_until(lambda: stack.status(f"{url}/-/ready") == 200, "Prometheus", 30)
        yield url


def test_each_host_belongs_to_one_shard(tmp_path: Path) -> None:
    """Together the shards scrape every host, none of them twice, and the load is spread."""
    hosts = [f"127.0.0.1:{number}" for number in range(10_001, 10_041)]
    taken: list[list[str]] = []
    for shard in range(4):
        config = agent_config(tmp_path / str(shard), "http://127.0.0.1:9", targets=hosts, shards=4, shard=shard)
        with agent(config) as url:

            def targets(base: str = url) -> list[str]:
                active = get(f"{base}/api/v1/targets?state=active")["data"]["activeTargets"]
                return [target["labels"]["instance"] for target in active]

            stack.wait_until(lambda: bool(targets()), "targets", 30)
            taken.append(targets())

    counts = collections.Counter(host for shard in taken for host in shard)
    assert counts == dict.fromkeys(hosts, 1)
    assert all(len(shard) >= 3 for shard in taken), [len(shard) for shard in taken]


class Victoria:
    """VictoriaMetrics with its folder; it can be away for a while."""

    def __init__(self, folder: Path) -> None:
        (self._port,) = stack.free_ports(1)
        self._folder = folder
        self.url = f"http://127.0.0.1:{self._port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with process(
            "victoria-metrics", f"-httpListenAddr=127.0.0.1:{self._port}", f"-storageDataPath={self._folder}/data",
            "-retentionPeriod=1d", "-search.latencyOffset=0s", "-dedup.minScrapeInterval=1s", "-memory.allowedBytes=256MB",
            log=self._folder / "log",
        ):  # fmt: skip
            stack.wait_until(lambda: stack.status(f"{self.url}/health") == 200, "VictoriaMetrics", 30)
            yield

    def query(self, promql: str) -> list[dict[str, Any]]:
        parameters = urllib.parse.urlencode({"query": promql, "nocache": "1"})
        return list(get(f"{self.url}/api/v1/query?{parameters}")["data"]["result"])

    def total(self, promql: str) -> float:
        return sum(float(series["value"][1]) for series in self.query(promql))

    def families(self) -> dict[str, int]:
        """Number of series of ours by name."""
        counted = self.query('count by (__name__) ({__name__=~"inferwatch_.+"})')
        return {series["metric"]["__name__"]: int(series["value"][1]) for series in counted}


def test_victoriametrics_holds_what_the_sidecar_said(tmp_path: Path) -> None:
    """Each series arrives with its value; while the store is away nothing is lost; two agents make no doubles."""
    victoria = Victoria(tmp_path)
    with stack.running(tmp_path) as sidecar, contextlib.ExitStack() as agents:
        target = sidecar.admin.removeprefix("http://")
        for name in ("a", "b"):
            agents.enter_context(agent(agent_config(tmp_path / name, victoria.url, targets=[target])))
        generate(sidecar, tenants=3)
        sidecar.settled(6)
        with victoria.running():
            booked = sidecar.total("inferwatch_tokens_total")
            stack.wait_until(
                lambda: victoria.total("inferwatch_tokens_total") == booked, "tokens in VictoriaMetrics", 40,
                lambda: f"{victoria.total('inferwatch_tokens_total')} of {booked}",
            )  # fmt: skip
            stack.wait_until(
                lambda: victoria.families() == families(sidecar), "every series in VictoriaMetrics", 30,
                lambda: f"{victoria.families().items() ^ families(sidecar).items()}",
            )  # fmt: skip
        generate(sidecar, tenants=3)  # while nobody takes what is written
        sidecar.settled(12)
        time.sleep(3)  # three scrapes that have to wait on disk
        with victoria.running():
            booked = sidecar.total("inferwatch_tokens_total")
            stack.wait_until(lambda: victoria.total("inferwatch_tokens_total") == booked, "the later tokens", 60)
            steps = victoria.query("count_over_time(inferwatch_draining[30s])")

    assert len(steps) == 1
    assert float(steps[0]["value"][1]) <= 31, "the pair's samples were kept twice"


def generate(sidecar: stack.Stack, tenants: int, first: int = 0) -> None:
    """A streamed and a plain chat of each of so many tenants."""

    async def ask() -> None:
        async with stack.client() as session:
            for number in range(first, tenants):
                headers = {"authorization": f"Bearer key-{number}"}
                for stream in (True, False):
                    body = stack.chat(max_tokens=12, stream=stream)
                    await stack.send(session, sidecar.url, body, headers=headers)

    asyncio.run(ask())


def families(sidecar: stack.Stack) -> dict[str, int]:
    """Number of series of ours by name, as a scrape has them."""
    with urllib.request.urlopen(f"{sidecar.admin}/metrics", timeout=10) as reply:
        lines = [line for line in reply.read().decode().splitlines() if line.startswith("inferwatch_")]
    return dict(collections.Counter(re.split(r"[{ ]", line)[0] for line in lines))


@pytest.fixture(name="told", scope="module")
def _told() -> Callable[[str], int]:
    """Looks a bound up in the page: `| series of … | measured | bound |`."""

    def bound(row: str) -> int:
        found = re.search(rf"^\| {re.escape(row)} \|[^|]*\| ([\d,]+) \|", PAGE.read_text(), flags=re.MULTILINE)
        assert found, f"docs/topics/scale.md has no row `{row}`"
        return int(found[1].replace(",", ""))

    return bound


def test_the_series_that_the_page_reckons_with_are_those_of_the_sidecar(
    tmp_path: Path, told: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fixed, per tenant, and per GPU: no more than docs/topics/scale.md multiplies with."""
    monkeypatch.setenv("INFERWATCH__COST__HOURLY_DOLLARS", "3.5")
    counts = []
    with stack.running(tmp_path) as sidecar:
        for before, tenants in ((0, 10), (10, 30)):
            generate(sidecar, tenants, first=before)
            sidecar.settled(2 * tenants)
            time.sleep(2)  # what the second of the last request cost is divided a moment later
            counts.append(sum(families(sidecar).values()))
    each = (counts[1] - counts[0]) / 20
    fixed = counts[0] - 10 * each
    gpus = (ROOT / "tests/golden/gpu_h100_x8_loaded.metrics").read_text().splitlines()
    per_gpu = sum(not line.startswith("#") for line in gpus) / 8

    say(f"series: {fixed:.0f} per host, {each:.0f} per tenant and operation, {per_gpu:.0f} per GPU")
    assert 0 < fixed <= told("host, without GPUs and tenants")
    assert 0 < each <= told("tenant, model and operation")
    assert 0 < per_gpu <= told("GPU")


def test_the_page_multiplies_correctly(told: Callable[[str], int]) -> None:
    """The budget for 1,000 hosts follows from the bounds above it."""
    page = PAGE.read_text()
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", page, flags=re.MULTILINE)

    assert len(rows) >= 4
    for row in rows:
        gpus, combinations, series, samples = (int(cell.replace(",", "")) for cell in row)
        of_a_host = (
            told("host, without GPUs and tenants")
            + gpus * told("GPU")
            + combinations * told("tenant, model and operation")
        )
        assert series == 1000 * of_a_host
        assert samples == pytest.approx(series / 15, rel=0.01)
