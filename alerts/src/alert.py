"""What an alert is: everything about it in one place, and how it is written as rules and as promtool tests.

The summary is for whoever is woken: it names what users suffer. `$labels` may stand in it, values may not (they are in
`value`), so that a test can say exactly which text arrives.
"""

import re
import textwrap
from typing import Any, Final, Literal

import msgspec
from alerts.src.promises import PROMISES

Severity = Literal["page", "ticket", "notice", "none"]
Team = Literal["serving", "finance"]

# The host of the histories in which alerts are tried, as part of a series and as labels of the alert.
HOST: Final = 'job="inferwatch", instance="host1:9480"'
HOST_LABELS: Final = {"job": "inferwatch", "instance": "host1:9480"}

_LABEL: Final = re.compile(r"\{\{ \$labels\.(\w+) \}\}")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A history, and whether the alert fires at its end.

    Args:
        series: values of each series in promtool's notation, one each minute.
        at: when to look.
        labels: of the alert that fires, beside those of the rule itself.
        value: what the annotation `value` says, if the alert has one.
        says: what makes this history worth a test; becomes the test's name.
    """

    series: dict[str, str]
    at: str
    labels: dict[str, str] | None = None
    value: str = ""
    says: str = ""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alerting rule.

    Args:
        name: also that of its runbook.
        severity: page (a user is hurting, now), ticket (somebody should look within days), notice (good to know),
            none (the Watchdog).
        expr: PromQL, as people read it.
        for_: how long it must hold, as `5m`.
        within: for pages: how long after users began to hurt it is sent at the latest, if all of them do.
        summary: one line that names the users' trouble.
        dashboard: uid of the dashboard to open first.
        value: a template of the figure that made it fire.
        team: whose it is.
        fires: histories in which it fires.
        silent: histories in which it does not.
        labels: further labels of the rule.
        keep: how long it keeps firing when the condition is gone, so that a flapping one is one.
    """

    name: str
    severity: Severity
    expr: str
    for_: str
    summary: str
    dashboard: str
    fires: tuple[Case, ...]
    silent: tuple[Case, ...]
    within: str = ""
    value: str = ""
    team: Team = "serving"
    labels: dict[str, str] = {}
    keep: str = ""

    @property
    def all_labels(self) -> dict[str, str]:
        return {"severity": self.severity, "team": self.team, **self.labels}

    @property
    def annotations(self) -> dict[str, str]:
        found = {
            "summary": self.summary,
            "runbook_url": f"{PROMISES.links.runbooks}/{self.name}.md",
            "dashboard": f"{PROMISES.links.grafana}/d/{self.dashboard}",
        }
        return found | ({"value": self.value} if self.value else {})

    def rule(self) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""
        found: dict[str, Any] = {"alert": self.name, "expr": tidy(self.expr)}
        if self.for_ != "0s":
            found["for"] = self.for_
        if self.keep:
            found["keep_firing_for"] = self.keep
        return found | {"labels": self.all_labels, "annotations": self.annotations}

    def tests(self) -> list[dict[str, Any]]:
        """Return promtool's tests."""
        return [self._test(case, fires=True) for case in self.fires] + [
            self._test(case, fires=False) for case in self.silent
        ]

    def _test(self, case: Case, *, fires: bool) -> dict[str, Any]:
        labels = self.all_labels | (case.labels or {})
        found: dict[str, Any] = {
            "name": f"{self.name} {'fires' if fires else 'is silent'}" + (f": {case.says}" if case.says else ""),
            "interval": "1m",
            "input_series": [{"series": key, "values": values} for key, values in case.series.items()],
        }
        if self.labels:  # several rules of one name: only this one is looked at
            found["promql_expr_test"] = [self._as_query(case.at, labels if fires else None)]
        else:
            expected = [self._expected(case, labels)] if fires else []
            found["alert_rule_test"] = [{"eval_time": case.at, "alertname": self.name, "exp_alerts": expected}]
        return found

    def _expected(self, case: Case, labels: dict[str, str]) -> dict[str, Any]:
        annotations = {key: _filled(text, labels) for key, text in self.annotations.items()}
        if self.value:
            annotations["value"] = case.value
        return {"exp_labels": labels, "exp_annotations": annotations}

    def _as_query(self, at: str, labels: dict[str, str] | None) -> dict[str, Any]:
        matchers = "".join(f', {key}="{value}"' for key, value in self.labels.items())
        query = f'ALERTS{{alertname="{self.name}", alertstate="firing"{matchers}}}'
        samples = []
        if labels is not None:
            everything = {"alertname": self.name, "alertstate": "firing", **labels}
            text = ", ".join(f'{key}="{value}"' for key, value in sorted(everything.items()))
            samples = [{"labels": f"ALERTS{{{text}}}", "value": 1}]
        return {"expr": query, "eval_time": at, "exp_samples": samples}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One recording rule; `record` is level:metric:operation."""

    record: str
    expr: str
    labels: dict[str, str] = {}

    def rule(self) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""
        found: dict[str, Any] = {"record": self.record, "expr": tidy(self.expr)}
        return found | ({"labels": self.labels} if self.labels else {})


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A rule file: its rules are evaluated in this order, so an alert may use what is recorded above it.

    `needs` names other groups whose records it uses.
    """

    name: str
    about: str
    alerts: tuple[Alert, ...]
    records: tuple[Record, ...] = ()
    interval: str = "30s"
    needs: tuple[str, ...] = ()

    def rules(self) -> dict[str, Any]:
        """Return the rule file."""
        rules = [record.rule() for record in self.records] + [alert.rule() for alert in self.alerts]
        return {"groups": [{"name": f"inferwatch-{self.name}", "interval": self.interval, "rules": rules}]}

    def tests(self) -> dict[str, Any]:
        """Return the test file."""
        rule_files = [f"../rules/{name}.yml" for name in (*self.needs, self.name)]
        tests = [test for alert in self.alerts for test in alert.tests()]
        return {"rule_files": rule_files, "evaluation_interval": "1m", "tests": tests}


def tidy(expr: str) -> str:
    """Return an expression without the indentation it has in our sources."""
    return textwrap.dedent(expr).strip()


def _filled(text: str, labels: dict[str, str]) -> str:
    """Return an annotation as Prometheus fills it; an absent label is empty."""
    return _LABEL.sub(lambda match: labels.get(match[1], ""), text)
