"""Write what is made from the alerts' sources: rules, promtool tests, and the list of all alerts.

python -m alerts.src.build [--check]
python -m alerts.src.build --rules-to DIR --divisor 60    # the same rules on a faster clock, for tests

Under a divisor every duration in rules is that much shorter; expressions and thresholds stay as they are.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from alerts.src import budgets, drift, engine, gpu, privacy, quality, requests, sharing, slo, traces, watching
from alerts.src.alert import Alert, Group

ROOT: Final = Path(__file__).resolve().parents[2]

# In the order of the list of alerts. A new group is a module beside this one and a line here.
MODULES: Final = (slo, requests, engine, gpu, budgets, sharing, drift, quality, traces, privacy, watching)

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(\d+)(ms|[smhd])")
# Where durations stand in PromQL: ranges, subqueries and offsets.
_IN_PROMQL: Final = re.compile(r"(\[[0-9smhd:]+\]|\boffset \d+[smhd]+)")


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: expressions of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def groups() -> list[Group]:
    """Return all groups, those of the SLO file included."""
    return [module.group() for module in MODULES]


def alerts() -> list[Alert]:
    """Return all alerts. Several may share a name: the windows of one SLO."""
    return [alert for group in groups() for alert in group.alerts]


def dump(content: Any, about: str) -> str:
    """Return YAML with a heading."""
    heading = "".join(f"# {line}\n" for line in about.splitlines())
    body = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
    return f"{heading}\n{body}"


def pages() -> Iterator[tuple[str, str]]:
    """Yield (path from the root, text) of each generated file."""
    everything = groups()
    for group in everything:
        source = f"Generated from alerts/src/{group.name}.py; do not edit."
        yield f"alerts/rules/{group.name}.yml", dump(group.rules(), f"{group.about}\n{source}")
        about = f"promtool test rules alerts/tests/{group.name}.yml\n{source}"
        yield f"alerts/tests/{group.name}.yml", dump(group.tests(), about)
    yield "docs/alerts.md", _list_of_alerts(everything)


def _list_of_alerts(everything: list[Group]) -> str:
    lines = [
        "# Alerts",
        "",
        "Generated from `alerts/src/`; do not edit.",
        "How they are routed, grouped and silenced: [topics/alerting.md](topics/alerting.md).",
        "",
        "*page*: a user is hurting now. *ticket*: somebody should look within days. *notice*: good to know.",
        "*within*: how long after all users began to hurt a page is sent at the latest.",
    ]
    for group in everything:
        lines += ["", f"## {group.name}", "", group.about, "", "| alert | severity | for | within | what it says |"]
        lines.append("|---|---|---|---|---|")
        for alert in group.alerts:
            window = f" ({alert.labels['window']})" if "window" in alert.labels else ""
            severity = alert.severity + (" (finance)" if alert.team == "finance" else "")
            link = f"[{alert.name}](../alerts/runbooks/{alert.name}.md){window}"
            summary = re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", alert.summary)
            lines.append(f"| {link} | {severity} | {alert.for_} | {alert.within} | {summary} |")
    return "\n".join(lines) + "\n"


def faster(rules: dict[str, Any], divisor: int) -> dict[str, Any]:
    """Return a rule file with all its durations divided."""
    for group in rules["groups"]:
        group["interval"] = divided(group["interval"], divisor)
        for rule in group["rules"]:
            rule["expr"] = _IN_PROMQL.sub(lambda match: divided(match[0], divisor), rule["expr"])
            for key in ("for", "keep_firing_for"):
                if key in rule:
                    rule[key] = divided(rule[key], divisor)
    return rules


def divided(text: str, divisor: int) -> str:
    """Return a text with each duration in it divided, as `2m` into `2000ms`."""
    return _DURATION.sub(lambda match: f"{int(match[1]) * _UNITS_MS[match[2]] // divisor}ms", text)


def write_or_check(made: Iterator[tuple[str, str]], *, check: bool, tell: Callable[[str], object] = print) -> bool:
    """Write what differs; with `check` only say so. True if nothing differed or all was written."""
    stale = []
    for name, text in made:
        path = ROOT / name
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    for name in stale:
        tell(f"{name}: {'out of date, run `make docs`' if check else 'written'}")
    return not (check and stale)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if something is out of date")
    parser.add_argument("--rules-to", type=Path, help="write the rules there, and nothing else")
    parser.add_argument("--divisor", type=int, default=1, help="how many times faster those rules are to be")
    options = parser.parse_args(arguments)
    if options.rules_to is not None:
        for group in groups():
            about = f"{group.about} On a clock {options.divisor} times faster."
            text = dump(faster(group.rules(), options.divisor), about)
            (options.rules_to / f"{group.name}.yml").write_text(text, "utf-8")
        return 0
    return 0 if write_or_check(pages(), check=options.check) else 1


if __name__ == "__main__":
    sys.exit(main())
