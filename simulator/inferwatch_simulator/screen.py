"""The demo's picture of `/metrics`: redrawn in place on a terminal, one line a second elsewhere."""

from typing import Final, TextIO

from inferwatch_simulator.readings import Scrape, quantile, rate, total, values

_HOME_AND_CLEAR: Final = "\x1b[H\x1b[J"
_HIDE_CURSOR: Final = "\x1b[?25l"
_SHOW_CURSOR: Final = "\x1b[?25h"

_REQUESTS: Final = "inferwatch_requests_total"
_TOKENS: Final = "inferwatch_tokens_total"
_IN_FLIGHT: Final = "inferwatch_requests_in_flight"
_TTFT: Final = "inferwatch_time_to_first_token_seconds"
_GAP: Final = "inferwatch_inter_token_latency_seconds"
_COST: Final = "inferwatch_cost_dollars_total"
_IDLE_COST: Final = "inferwatch_idle_cost_dollars_total"


class Screen:
    """Draws on `out`."""

    def __init__(self, out: TextIO, *, data: str, metrics: str) -> None:
        self._out = out
        self._data = data
        self._metrics = metrics
        self._live = out.isatty()
        self.says = ""  # what happens now
        self._said = ""
        self._begun = False

    def draw(self, old: Scrape, new: Scrape) -> None:
        """Show what happened between two scrapes."""
        if self._live:
            start = "" if self._begun else _HIDE_CURSOR
            self._out.write(start + _HOME_AND_CLEAR + "\n".join(self._page(old, new)) + "\n")
        else:
            if not self._begun:
                self._out.write("\n".join(self._title()) + "\n")
            if self.says != self._said:
                self._out.write(f"-- {self.says}\n")
                self._said = self.says
            self._out.write(line(old, new) + "\n")
        self._begun = True
        self._out.flush()

    def close(self, last: Scrape | None) -> None:
        """Leave the terminal as it was, with the totals."""
        if self._live and self._begun:
            self._out.write(_SHOW_CURSOR)
        if last is not None:
            self._out.write(
                f"\n{total(last, _REQUESTS):.0f} requests, {total(last, _TOKENS, type='prompt'):.0f} prompt tokens, "
                f"{total(last, _TOKENS, type='completion'):.0f} completion tokens were counted.\n"
            )
        self._out.flush()

    def _title(self) -> list[str]:
        return [
            "Inferwatch demo: a simulated engine, the real proxy, live numbers (Ctrl-C ends it)",
            f"send your own requests to {self._data}/v1/chat/completions",
            f"the live page is at {self._metrics.removesuffix('metrics')}, all metrics at {self._metrics}",
            f"in another terminal: inferwatch top --admin {self._metrics.split('/')[2]}",
            "",
        ]

    def _page(self, old: Scrape, new: Scrape) -> list[str]:
        page = self._title()
        page += [self.says, "", line(old, new), ""]
        latency = f"{'TTFT p50':>10}{'TTFT p99':>10}{'cost':>11}"
        page += [f"{'tenant':<24}{'req/s':>8}{'prompt tok/s':>14}{'output tok/s':>14}{latency}"]
        for tenant in values(new, _REQUESTS, "tenant"):
            page.append(
                f"{tenant:<24}{rate(old, new, _REQUESTS, tenant=tenant):>8.1f}"
                f"{rate(old, new, _TOKENS, tenant=tenant, type='prompt'):>14.0f}"
                f"{rate(old, new, _TOKENS, tenant=tenant, type='completion'):>14.0f}"
                f"{_ms(quantile(old, new, _TTFT, 0.5, tenant=tenant)):>10}"
                f"{_ms(quantile(old, new, _TTFT, 0.99, tenant=tenant)):>10}"
                f"{_dollars(total(new, _COST, tenant=tenant)):>11}"
            )
        page += [f"{'idle':<80}{_dollars(total(new, _IDLE_COST)):>11}"]
        page += ["", f"{'outcome since the start':<24}{'requests':>10}"]
        for outcome in values(new, _REQUESTS, "outcome"):
            page.append(f"{outcome:<24}{total(new, _REQUESTS, outcome=outcome):>10.0f}")
        page += ["", f"{'tokens came from':<24}{'tokens':>10}"]
        for source in values(new, "inferwatch_tokens_by_source_total", "source"):
            page.append(f"{source:<24}{total(new, 'inferwatch_tokens_by_source_total', source=source):>10.0f}")
        return page


def line(old: Scrape, new: Scrape) -> str:
    """The golden signals in one line."""
    return (
        f"{rate(old, new, _REQUESTS):6.1f} req/s  {total(new, _IN_FLIGHT):4.0f} in flight  "
        f"{rate(old, new, _TOKENS, type='prompt'):7.0f} prompt tok/s  "
        f"{rate(old, new, _TOKENS, type='completion'):6.0f} output tok/s  "
        f"TTFT p50 {_ms(quantile(old, new, _TTFT, 0.5))} p99 {_ms(quantile(old, new, _TTFT, 0.99))}  "
        f"gap p50 {_ms(quantile(old, new, _GAP, 0.5))} p99 {_ms(quantile(old, new, _GAP, 0.99))}  "
        f"cost {_dollars(total(new, _COST))}, idle {_dollars(total(new, _IDLE_COST))}"
    )


def _dollars(amount: float) -> str:
    return f"${amount:.5f}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
