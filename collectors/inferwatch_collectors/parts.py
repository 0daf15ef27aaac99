"""What a collector is made of, in the order in which one part needs another. Nothing runs yet: that is `app`'s."""

import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from inferwatch import __version__, canary, host
from inferwatch.config import Config
from inferwatch.record import Share
from inferwatch_collectors import metrics as m
from inferwatch_collectors.anomalies.watch import AnomalyWatch
from inferwatch_collectors.attribution.meter import Meter
from inferwatch_collectors.booking import Booking, Watcher
from inferwatch_collectors.budgets.watch import BudgetWatch
from inferwatch_collectors.canary.around import around
from inferwatch_collectors.canary.asking import data_url
from inferwatch_collectors.canary.watch import CanaryWatch
from inferwatch_collectors.cardinality import CardinalityGuard, Limits
from inferwatch_collectors.dialects.base import CUT_REASONS
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.embeddings.asking import Endpoint
from inferwatch_collectors.embeddings.embedder import Embedder
from inferwatch_collectors.embeddings.redacting import Redacting
from inferwatch_collectors.embeddings.sketch import Sketcher
from inferwatch_collectors.engine.said import Said
from inferwatch_collectors.exchange import Exchange
from inferwatch_collectors.feedback.comments import RESULTS as COMMENT_RESULTS
from inferwatch_collectors.feedback.comments import Comments
from inferwatch_collectors.feedback.service import RESULTS as CALL_RESULTS
from inferwatch_collectors.feedback.service import FeedbackService
from inferwatch_collectors.gpu.monitor import GpuMonitor
from inferwatch_collectors.ledger.base import Ledger
from inferwatch_collectors.ledger.journal import Journal
from inferwatch_collectors.ledger.sqlite import FILE_NAME, SqliteLedger
from inferwatch_collectors.ledger.vote import Asked
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import TABLE
from inferwatch_collectors.otlp import environment
from inferwatch_collectors.quality.loop_guard import LoopGuard
from inferwatch_collectors.quality.watch import QualityWatch
from inferwatch_collectors.recorder import Recorder
from inferwatch_collectors.request_log import LineWriter
from inferwatch_collectors.spool import SpoolReader
from inferwatch_collectors.start import CollectorSettings
from inferwatch_collectors.tap_server import TapServer
from inferwatch_collectors.vitals import Vitals

if TYPE_CHECKING:
    from inferwatch_collectors.otlp.export import OtlpExport

SECRET_BYTES: Final = 32


async def open_ledger(settings: CollectorSettings) -> Ledger:
    """Open the ledger of the configuration.

    Raises:
        LedgerInUseError: somebody else has it.
    """
    kept = settings.config.ledger
    return await SqliteLedger.open(
        Path(settings.state_dir) if settings.state_dir else None,
        retention_days=kept.retention_days,
        hour_retention_days=kept.hour_retention_days,
        day_retention_days=kept.day_retention_days,
        max_rows=kept.max_rows,
    )


def _content_secret(settings: CollectorSettings) -> bytes:
    """Return the secret behind hashes of content; without a state folder one that ends with this process.

    Raises:
        ConfigError: the key file is unreadable or too short.
    """
    config = settings.config
    if not (config.drift.text or config.quality.listen or config.canary.enabled):
        return b""
    state_dir = settings.state_dir
    return host.identity_secret(config, Path(state_dir)) if state_dir else secrets.token_bytes(SECRET_BYTES)


class Parts:
    """The parts that live as long as the collector."""

    def __init__(
        self,
        settings: CollectorSettings,
        ledger: Ledger,
        watchers: Sequence[Watcher],
        *,
        in_force: Callable[[], Config],
        engine: Callable[[], str],
        said: Callable[[], Said],
        ask: Callable[[], None],
    ) -> None:
        """`watchers` see each booked record after those that are made here.

        `in_force` returns the configuration as reloads have left it, `engine` the name of the engine or "", `said` what
        it says of itself; `ask` has it asked soon.

        Raises:
            ConfigError: what is needed for OTLP cannot be used.
        """
        config = settings.config
        self.store = MetricStore(TABLE)
        limits = Limits(models=config.metrics.max_models, tenants=config.metrics.max_tenants)
        self.recorder = Recorder(self.store, CardinalityGuard(limits))
        self.otlp = _otlp(in_force, self.store, engine) if environment.exports_any(config.otlp) else None
        if self.otlp is not None:
            watchers = (*watchers, ("otlp", self.otlp.record))
            if environment.exports(config.otlp, "traces"):
                self.recorder.traced = self.otlp.takes
        self.journal = Journal(ledger, self.store)
        self.budgets = BudgetWatch(
            config,
            self.store,
            Path(settings.board) if settings.board else None,
            links=lambda: self.tap.links(),  # noqa: PLW0108 - it is made below
            cut=lambda link, ids: self.tap.cut(link, ids),  # noqa: PLW0108
            commit=self.journal.flush,
            ledger=Path(settings.state_dir) / FILE_NAME if ledger.durable else None,
        )
        self.meter = Meter(
            self.store,
            self.recorder.guard,
            self._share,
            cost=config.cost,
            attribution=config.attribution,
            energy=config.energy,
        )
        self.anomalies = AnomalyWatch(self.store, self.recorder.guard, config.anomalies)
        self.secret = secret = _content_secret(settings)
        self.quality = QualityWatch(self.store, self.recorder.guard, config.quality, secret=secret)
        self.embedder = _embedder(settings, self.store, secret, self.recorder.observer_error)
        self.drift = DriftWatch(
            self.store,
            self.recorder.guard,
            config.drift,
            secret=secret,
            load=lambda: self.booking.open_requests,
            ask=ask,
            embedder=self.embedder,
        )
        self.feedback: FeedbackService | None = None
        if config.feedback.is_used:
            self.recorder.votes = True
            self.feedback = FeedbackService(
                settings.access,
                ledger,
                Comments(config.privacy, self.recorder.observer_error),
                self.store,
                self.recorder.guard,
                still_open=self._still_open,
                flush=self.journal.flush,
            )
            watchers = (*watchers, ("feedback", self.feedback.record))
        self.canary = CanaryWatch(
            self.store, config.canary, secret=secret, around=lambda model: around(self.store, engine(), said(), model)
        )
        if config.canary.enabled:
            self.recorder.guard.pin("tenant", (canary.TENANT,))
        if self.embedder is not None:
            self.recorder.guard.pin("tenant", (canary.EMBEDDINGS_TENANT,))
        self.booking = Booking(
            self.recorder,
            self.journal.add,
            may_forget=lambda: not self.journal.failing,
            watchers=(
                ("budgets", self.budgets.meter.record),
                ("attribution", self.meter.closed),
                ("anomalies", self.anomalies.record),
                ("drift", self.drift.record),
                ("quality", self.quality.record),
                *watchers,
            ),
            audiences=(
                *((("drift", self.drift),) if config.drift.enabled else ()),
                *((("quality", self.quality),) if self.quality.listens else ()),
                *((("loops", LoopGuard(self._cut_loop)),) if config.quality.cut_loops else ()),
                *((("otlp", self.otlp),) if self.otlp is not None else ()),
            ),
            budgets=self.budgets.meter,
        )
        self.tap = TapServer(Path(settings.socket_path), self.booking, self.journal)
        self.spool = SpoolReader(
            Path(settings.spool_dir),
            self.booking,
            self.journal,
            connected_boots=lambda: {link.boot for link in self.tap.links()},
        )
        self.writer = LineWriter(sys.stdout.fileno())
        self.gpu = GpuMonitor(config.gpu, self.store, self.meter.energy, upstream=config.upstream.url)
        self.vitals = Vitals(self.store)

    def open_exchanges(self) -> Iterator[Exchange]:
        """Yield what is open and being read."""
        return (exchange for link in self.tap.links() for exchange in link.exchanges())

    def _cut_loop(self, request_id: str, number: int) -> None:
        self.tap.cut_loop(request_id, number)

    def _still_open(self, request_id: str) -> Asked | None:
        for exchange in self.open_exchanges():
            opened = exchange.opened
            if opened.request_id == request_id:
                return Asked(opened.tenant, opened.model, exchange.operation, None)
        return None

    def _share(self, share: Share) -> None:
        self.journal.add_share(share)
        self.budgets.meter.share(share)

    def follow_counts(self) -> None:
        """Show what the parts count about themselves. Once, after the store was restored."""
        vitals, booking, journal = self.vitals, self.booking, self.journal
        vitals.started(__version__, time.time())
        vitals.count(m.LEDGER_COMMITS, (), lambda: journal.commits)
        vitals.count(m.LEDGER_COMMIT_FAILURES, (), lambda: journal.commit_failures)
        vitals.cut("ledger_records", lambda: journal.lost)
        vitals.cut("ledger_shares", lambda: journal.lost_shares)
        vitals.cut("ledger_late", lambda: journal.lost_late)
        vitals.cut("unsure", lambda: journal.unsure)
        vitals.cut("log_lines", lambda: self.writer.dropped)
        vitals.cut("unwatched_requests", lambda: booking.unwatched)
        vitals.cut("plain_replies", lambda: booking.plain_given_up)
        for reason in CUT_REASONS:
            vitals.cut(reason, lambda reason=reason: booking.cuts[reason])  # type: ignore[misc]
        vitals.cut("neighbour_suspects", lambda: booking.neighbours.cut)
        vitals.cut("anomaly_tenants", lambda: self.anomalies.tenants_cut)
        vitals.cut("anomaly_runs", lambda: self.anomalies.runs_cut)
        vitals.cut("anomaly_late", lambda: self.anomalies.late)
        vitals.cut("drift_streams", lambda: self.drift.streams_cut)
        vitals.cut("drift_references", lambda: self.drift.references_cut)
        vitals.cut("drift_choices", lambda: self.drift.choices_cut)
        vitals.cut("drift_unsure_votes", lambda: self.drift.votes_dropped)
        vitals.cut("quality_prompts", lambda: self.quality.prompts_cut)
        vitals.cut("quality_choices", lambda: self.quality.choices_cut)
        vitals.cut("canary_models", lambda: self.canary.models_cut)
        vitals.cut("drift_sessions", lambda: self.drift.sessions_cut)
        if self.feedback is not None:
            calls, comments = self.feedback.results, self.feedback.comments.results
            for result in CALL_RESULTS:
                vitals.count(m.FEEDBACK_CALLS, (result,), lambda result=result: calls[result])  # type: ignore[misc]
            for result in COMMENT_RESULTS:
                vitals.count(m.FEEDBACK_COMMENTS, (result,), lambda result=result: comments[result])  # type: ignore[misc]
        vitals.cut("orphan_frames", lambda: booking.orphans)
        vitals.cut("bad_peers", lambda: self.tap.bad_peers)
        vitals.cut("spool_torn", lambda: self.spool.torn)
        vitals.cut("spool_bad", lambda: self.spool.bad)
        watches = (self.anomalies, self.drift, self.canary)
        vitals.cut("memos_damaged", lambda: sum(each.memos_damaged for each in watches))
        if self.otlp is not None:
            self.otlp.follow(vitals)


def _embedder(
    settings: CollectorSettings, store: MetricStore, secret: bytes, fault: Callable[[str], None]
) -> Embedder | None:
    config = settings.config
    wanted = config.drift.embeddings
    if not (config.drift.enabled and wanted.is_used):
        return None
    own = data_url(settings.data_host, settings.data_port, tls=bool(config.tls.cert_file))
    endpoint = Endpoint(wanted, own, secret=secret)
    redact = Redacting(config.privacy) if wanted.redacts and not endpoint.is_own else None
    return Embedder(wanted, store, endpoint, Sketcher(secret), redact=redact, fault=fault)


def _otlp(config: Callable[[], Config], store: MetricStore, engine: Callable[[], str]) -> "OtlpExport":
    """Return what exports. Without it nothing of OpenTelemetry is imported."""
    from inferwatch_collectors.otlp.export import OtlpExport  # noqa: PLC0415

    return OtlpExport(config, store, engine, instance=secrets.token_hex(8))
