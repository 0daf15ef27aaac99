"""What holds for every alert: who is told what, and that the names it uses exist. promtool and the real servers are in
tests/services."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from alerts.src import build
from alerts.src.alert import Alert
from alerts.src.promises import read
from promql import bad_labels, unknown

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "alerts" / "runbooks"
ALERTS = build.alerts()
RECORDED = {record.record for group in build.groups() for record in group.records}
SECTIONS = ["Meaning", "Impact", "First three checks", "Mitigation", "When to wake somebody else"]

# Whoever reads a summary must learn what it means for people, not for a machine.
PEOPLE = re.compile(
    r"\buser|\bclient|\btenant|[Rr]equests? |\bNobody\b|\banswers?\b|Answers|\bbills?\b|budget", re.IGNORECASE
)

each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: "-".join([alert.name, *alert.labels.values()]))


@each_alert
def test_alert_is_complete(alert: Alert) -> None:
    """A severity, a summary that names the trouble of people, a dashboard, and a history for each side."""
    assert alert.name.startswith("Inferwatch")
    assert 40 <= len(alert.summary) <= 180
    assert "\n" not in alert.summary
    assert PEOPLE.search(alert.summary)
    assert "$value" not in alert.summary
    assert alert.dashboard.startswith("inferwatch-")
    assert bool(alert.within) == (alert.severity == "page")
    assert alert.fires
    assert alert.silent or alert.severity == "none"  # the Watchdog is never silent: that is its purpose


@each_alert
def test_alert_uses_what_exists(alert: Alert) -> None:
    """Metrics of the table with labels that they have, and records of our own."""
    assert not unknown(alert.expr, RECORDED)
    assert not bad_labels(alert.expr)


def test_records_use_what_exists() -> None:
    """The same for what is recorded; and each record is used by somebody."""
    for group in build.groups():
        for record in group.records:
            assert not unknown(record.expr, RECORDED), record.record
            assert not bad_labels(record.expr), record.record


@each_alert
def test_alert_has_a_runbook(alert: Alert) -> None:
    """With its five sections, three checks, and queries over metrics that exist."""
    text = (RUNBOOKS / f"{alert.name}.md").read_text("utf-8")
    assert text.startswith(f"# {alert.name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    checks = text.split("## First three checks")[1].split("\n## ")[0]
    assert re.findall(r"^(\d)\. ", checks, re.MULTILINE) == ["1", "2", "3"]
    blocks = re.findall(r"```(promql|sh)\n(.*?)```", checks, re.DOTALL)
    assert len(blocks) == 3
    for language, block in blocks:
        if language == "promql":
            assert not unknown(block, RECORDED)
            assert not bad_labels(block)
    for section in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        assert section.strip()
    for link in re.findall(r"\]\((\w+\.md)\)", text):
        assert (RUNBOOKS / link).exists(), link


def test_no_runbook_is_left_over() -> None:
    """Each is somebody's."""
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {alert.name for alert in ALERTS}


def test_generated_files_are_up_to_date() -> None:
    """`make docs` would change nothing, and nothing lies about that it would not write."""
    told: list[str] = []
    assert build.write_or_check(build.pages(), check=True, tell=told.append), told
    made = {name for name, _ in build.pages()}
    for folder in ("rules", "tests"):
        assert {f"alerts/{folder}/{path.name}" for path in (ROOT / "alerts" / folder).iterdir()} <= made


def test_faster_rules_differ_in_time_alone() -> None:
    """The rules that tests run on a faster clock have the same expressions and thresholds."""
    for group in build.groups():
        plain, fast = group.rules()["groups"][0], build.faster(group.rules(), 60)["groups"][0]
        for before, after in zip(plain["rules"], fast["rules"], strict=True):
            shape = re.compile(r"\d+(ms|[smhd])\b")
            assert shape.sub("T", before["expr"]) == shape.sub("T", after["expr"])
    assert build.faster({"groups": [{"interval": "30s", "rules": [{"expr": "rate(x[1h])", "for": "2m"}]}]}, 60) == {
        "groups": [{"interval": "500ms", "rules": [{"expr": "rate(x[60000ms])", "for": "2000ms"}]}]
    }


# --- the SLO file ---

GOOD = (ROOT / "alerts" / "slo.yml").read_text("utf-8")


def test_a_model_may_be_promised_something_else() -> None:
    """Its own promise counts for what it names, the general one for the rest; its rules are made beside the others."""
    own = read(GOOD.replace("models: {}", "models: {big: {ttft: {threshold_s: 5.0}}}"))
    assert own.of("ttft", "big").threshold_s == 5.0
    assert own.of("ttft", "big").objective == own.of("ttft", None).objective
    assert own.of("itl", "big") == own.of("itl", None)


def test_rules_of_a_model_with_its_own_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is taken out of the general rule, and has one with its own bound."""
    own = read(GOOD.replace("models: {}", "models: {big: {ttft: {threshold_s: 5.0, objective: 0.9}}}"))
    monkeypatch.setattr(build.slo, "PROMISES", own)
    bad = [each.expr for each in build.slo.records() if each.record == build.slo.BAD and each.labels["slo"] == "ttft"]
    assert len(bad) == 2
    assert 'model!~"big"' in bad[0]
    assert 'model="big", le="5.0"' in bad[1]
    burns = [each for each in build.slo.records() if each.labels.get("model") == "big" and each.record != build.slo.BAD]
    assert any("/ 0.1" in each.expr for each in burns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("threshold_s: 2.5", "threshold_s: 2.4"), "slos.ttft.threshold_s: 2.4 is no bucket bound"),
        (("objective: 0.999", "objective: 1.5"), "objective"),
        (("availability:", "uptime:"), "uptime"),
        (("    min_bad_events: 500\n", ""), "slos.itl: objective and min_bad_events are needed"),
        (("models: {}", "models: {m: {availability: {threshold_s: 1.0}}}"), "models.m.availability.threshold_s"),
    ],
)
def test_slo_file_says_what_is_wrong(change: tuple[str, str], message: str) -> None:
    """A mistake names its key."""
    with pytest.raises(ValueError, match=re.escape(message)):
        read(GOOD.replace(*change))


# --- Alertmanager ---

CONFIG = yaml.safe_load((ROOT / "alerts" / "alertmanager.yml").read_text("utf-8"))


def labels_of(name: str) -> list[set[str]]:
    """Return the names of the labels of each alert of this name, as its tests see them."""
    return [
        {"alertname"} | set(alert.all_labels) | set(case.labels or {})
        for alert in ALERTS
        if alert.name == name
        for case in alert.fires
    ]


def names_in(matchers: list[str]) -> set[str]:
    text = " ".join(matchers)
    named = set(re.findall(r"Inferwatch\w+", text))
    if named:
        return named
    wanted = dict(re.findall(r"(\w+) = (\w+)", text))
    needed = set(re.findall(r'(\w+) != ""', text))
    return {
        alert.name
        for alert in ALERTS
        for case in alert.fires
        if wanted.items() <= alert.all_labels.items() and needed <= set(alert.all_labels) | set(case.labels or {})
    }


@pytest.mark.parametrize("rule", CONFIG["inhibit_rules"], ids=str)
def test_inhibition_names_labels_that_both_sides_have(rule: dict[str, list[str]]) -> None:
    """A label that both lack is equal to Alertmanager: the rule would silence everything."""
    needed = set(re.findall(r'(\w+) != ""', " ".join(rule["source_matchers"])))
    for side in ("source_matchers", "target_matchers"):
        names = names_in(rule[side])
        assert names, rule
        assert names <= {alert.name for alert in ALERTS}
        for name in names:
            found = [labels for labels in labels_of(name) if side == "target_matchers" or needed <= labels]
            assert found
            assert all(set(rule["equal"]) <= labels for labels in found), (name, rule["equal"])


def test_secrets_are_files() -> None:
    """Nothing secret can be written into the file that is committed."""
    text = (ROOT / "alerts" / "alertmanager.yml").read_text("utf-8")
    secret = re.compile(
        r"^\s*-?\s*(\w*(?:password|routing_key|service_key|api_url|token|credentials)\w*):", re.MULTILINE
    )
    for key in secret.findall(text):
        assert key.endswith("_file"), key


def test_only_the_watchdog_has_no_severity() -> None:
    """Each alert goes somewhere: only the Watchdog's severity has no way of its own."""
    by_severity = defaultdict(set)
    for alert in ALERTS:
        by_severity[alert.severity].add(alert.name)
    assert by_severity["none"] == {"InferwatchWatchdog"}
