"""Quality and drift: are answers of use, and is everything as it was?"""

from typing import Final

from dashboards.src.panels import (
    BAD,
    FAIR,
    GOOD,
    HOST,
    MODEL,
    REQUEST,
    Board,
    Query,
    Row,
    bars,
    counted,
    rows_of,
    series,
    stack,
    stat,
    total,
    value,
)

_EVIDENCE_STEPS: Final = ((0, GOOD), (4, FAIR), (20, BAD))
_SIGNS: Final = "inferwatch_quality_signs_total"
_HEARD: Final = "inferwatch_quality_heard_total"
_REQUESTS: Final = "inferwatch_requests_total"
_VOTES: Final = "inferwatch_feedback_votes_total"
_STREAM: Final = "model, tenant"


def _share(sign: str, of: str, by: str = "model") -> Query:
    part = f'sum by ({by}) (rate({_SIGNS}{{{REQUEST}, sign=~"{sign}"}}[1h]))'
    return Query(f"{part} / sum by ({by}) (rate({of}[1h]))", "{{model}}")


_ALL: Final = f'{_REQUESTS}{{{REQUEST}, outcome=~"ok|client_abort", operation!="other"}}'
_LISTENED: Final = f"{_HEARD}{{{REQUEST}}}"

_NOW: Final = Row(
    "As it was?",
    (
        stat(
            "Drifted",
            Query(f"sum(inferwatch_drift_detected{{{REQUEST}}})"),
            "none",
            "Models and tenants that are unlike their reference, at the rate of false signals that is configured.",
            steps=((0, GOOD), (1, BAD)),
        ),
        stat(
            "Judged",
            Query(f"sum(inferwatch_drift_judging{{{REQUEST}}})"),
            "none",
            "Models and tenants with a reference. Of the others nobody would notice a change.",
        ),
        stat(
            "Still learning",
            Query(f"count(inferwatch_drift_judging{{{REQUEST}}} == 0) or vector(0)"),
            "none",
            "Models and tenants whose reference is being learnt: a week, and the votes that it takes.",
        ),
        stat(
            "Signals",
            counted("inferwatch_drift_signals_total", REQUEST),
            "short",
            "Episodes of drift in the time shown; the log has a line for each.",
        ),
        stat(
            "Down, of all thumbs",
            Query(
                f'sum(increase({_VOTES}{{{REQUEST}, thumb="down"}}[$__range])) / '
                f'sum(increase({_VOTES}{{{REQUEST}, thumb=~"up|down"}}[$__range]))'
            ),
            "percentunit",
            "Of the requests in the time shown on which users voted, by their first vote.",
        ),
        stat(
            "Texts looked at",
            Query(f"sum(rate({_LISTENED}[1h])) / sum(rate({_ALL}[1h]))"),
            "percentunit",
            "Share of requests with quality.listen. Loops, refusals and repeated prompts are known of these alone.",
        ),
        series(
            "Evidence",
            value("inferwatch_drift_evidence", REQUEST, "model, tenant, direction", how="max"),
            "short",
            "In weeks: an alert at W is false at most once in W weeks. prompt: the users; answer: the model; pace: the "
            "engine. The ticket is at 20.",
            width=16,
            steps=_EVIDENCE_STEPS,
        ),
        series(
            "Detected",
            value("inferwatch_drift_detected", REQUEST, _STREAM, how="max"),
            "bool_on_off",
            "From the signal until the evidence is gone.",
        ),
        series(
            "Evidence, all together",
            Query(
                f"sum by (instance) (sum by (instance, model, tenant) (inferwatch_drift_evidence{{{REQUEST}}}) < 20)",
                "{{instance}}",
            ),
            "short",
            "In weeks, of all models and tenants that have less than 20 alone: a little in each of many is a change, too. "
            "An alert at W is false at most once in W weeks. The ticket is at 20.",
            width=16,
            steps=_EVIDENCE_STEPS,
        ),
        series(
            "Detected, all together",
            value("inferwatch_drift_detected_together", HOST, "instance", how="max"),
            "bool_on_off",
            "From the signal until the evidence is gone; the log has a line, `inferwatch report --drift` says whose it is.",
        ),
    ),
)

_CANARY: Final = Row(
    "The same model?",
    (
        series(
            "Canary's evidence",
            value("inferwatch_canary_evidence", MODEL, "model", how="max"),
            "short",
            "That fixed prompts are answered by another model than the reference's, in weeks. Users have no part in it. The "
            "ticket is at 20.",
            steps=_EVIDENCE_STEPS,
        ),
        series(
            "How far from the same model",
            (
                value("inferwatch_canary_distance_nats", MODEL, "model", how="max"),
                value("inferwatch_canary_usual_distance_nats", MODEL, "model", how="max", legend="{{model}}, usual"),
            ),
            "short",
            "Of the next token's log-probabilities, in nats. Tenths: another quantisation or engine; several: other weights.",
        ),
        series(
            "Probes",
            counted("inferwatch_canary_probes_total", MODEL, "result"),
            "short",
            "In the time shown, by what came of them. Nothing here: canary.enabled is false.",
        ),
        rows_of(
            "Canary's references",
            (
                Query(f"max by (model) (inferwatch_canary_judging{{{MODEL}}})", "judging"),
                Query(f"max by (model) (inferwatch_canary_reference_replies{{{MODEL}}})", "replies"),
                Query(f"max by (model) (inferwatch_canary_detected{{{MODEL}}})", "changed"),
            ),
            "none",
            "What there is to judge by.",
        ),
        stat(
            "Signals of the canary",
            counted("inferwatch_canary_signals_total", MODEL),
            "short",
            "Times that a model was found to be another; the log has a line for each.",
        ),
        stat(
            "Canary off",
            value("inferwatch_canary_off", HOST, "reason", how="max"),
            "none",
            "Why nothing comes of its probes.",
            steps=((0, GOOD), (1, FAIR)),
        ),
    ),
)

_EFFECTS: Final = Row(
    "What moved",
    (
        bars(
            "Distance from the reference",
            Query(f"topk(12, max by (drift_feature) (inferwatch_drift_wasserstein{{{REQUEST}}}))", "{{drift_feature}}"),
            "short",
            "The last thousand votes, in standard deviations; of a yes-or-no the difference of its shares. How much, not "
            "how sure.",
            width=12,
        ),
        bars(
            "Population stability index",
            Query(f"topk(12, max by (drift_feature) (inferwatch_drift_psi{{{REQUEST}}}))", "{{drift_feature}}"),
            "short",
            "The same in the measure that people know: 0.1 is said to be some, 0.25 much. It is above 0 by chance alone.",
            width=12,
        ),
        rows_of(
            "References",
            (
                Query(f"max by ({_STREAM}) (inferwatch_drift_judging{{{REQUEST}}})", "judging"),
                Query(f"max by ({_STREAM}) (inferwatch_drift_reference_votes{{{REQUEST}}})", "votes"),
                Query(f"max by ({_STREAM}) (inferwatch_drift_features_off{{{REQUEST}}})", "features off"),
                Query(f"sum by ({_STREAM}) (inferwatch_drift_engine_changes_total{{{REQUEST}}})", "engine changed"),
            ),
            "none",
            "What there is to judge by. A feature is off of which the reference has too few values, or that is learnt. When the engine's version, weights or "
            "context changed, a reference of it is learnt anew, or used again: `inferwatch report --drift` says which.",
        ),
        series(
            "Embeddings of prompts",
            counted("inferwatch_drift_embeddings_total", HOST, "result"),
            "short",
            "In the time shown, by what came of them; all but ok vote without one. Nothing here: there is no "
            "drift.embeddings.url.",
        ),
        stat(
            "Embeddings off",
            value("inferwatch_drift_embeddings_off", HOST, "reason", how="max"),
            "none",
            "Why nothing comes of them. Drift is judged without.",
            steps=((0, GOOD), (1, FAIR)),
        ),
    ),
)

_SIGNS_ROW: Final = Row(
    "Answers of no use",
    (
        stack(
            "Signs",
            total(_SIGNS, REQUEST, "sign"),
            "reqps",
            "Requests a second with each sign; one may have several.",
            width=12,
        ),
        series(
            "Loops",
            _share("loop|repetition", _LISTENED),
            "percentunit",
            "Answers that end in the same words again and again, by us or by the engine, of those that were looked at.",
            width=6,
        ),
        series(
            "Refusals",
            _share("refusal", _LISTENED),
            "percentunit",
            "Answers that begin as refusals do. How many are usual depends on the model: look for a change.",
            width=6,
        ),
        series(
            "Cut or empty",
            _share("truncated|empty", _ALL),
            "percentunit",
            "Answers cut by the length limit, or with no token in them.",
            width=6,
        ),
        series(
            "Asked again",
            _share("retry|regeneration", _LISTENED),
            "percentunit",
            "The same prompt within a minute: after a failure, or after an answer.",
            width=6,
        ),
        series(
            "Given up",
            _share("unheard|abandoned", _ALL),
            "percentunit",
            "Clients that hung up, before the first token or in the midst of the answer.",
            width=6,
        ),
        series(
            "Stalled",
            _share("stalled", _ALL),
            "percentunit",
            "Answers that stood still for quality.stall_s.",
            width=6,
        ),
        series(
            "Loops cut",
            counted(_SIGNS, f'{REQUEST}, sign="loop_cut"', "model, tenant"),
            "short",
            "Streams ended in the time shown because their answer said the same again and again. Nothing here: "
            "quality.cut_loops is false.",
            width=12,
        ),
    ),
)

_FEEDBACK: Final = Row(
    "What users say",
    (
        stack("Votes", total(_VOTES, REQUEST, "model, thumb"), "reqps", "First votes a second, by model."),
        series(
            "Down, by model",
            Query(
                f'sum by (model) (increase({_VOTES}{{{REQUEST}, thumb="down"}}[1d])) / '
                f'sum by (model) (increase({_VOTES}{{{REQUEST}, thumb=~"up|down"}}[1d]))',
                "{{model}}",
            ),
            "percentunit",
            "Over a day. Who is content seldom votes: compare models and days, not with 0.",
        ),
        series(
            "Calls and comments",
            (
                counted("inferwatch_feedback_calls_total", HOST, "result"),
                counted("inferwatch_feedback_comments_total", HOST, "result", legend="comment {{result}}"),
            ),
            "short",
            "Of POST /feedback in the time shown. unknown: another host's request, or one that is too old.",
        ),
    ),
)

BOARD: Final = Board(
    uid="inferwatch-quality",
    about="Are answers of use, what do users say of them, and are traffic and model what they were?",
    rows=(_NOW, _CANARY, _EFFECTS, _SIGNS_ROW, _FEEDBACK),
    last="now-24h",
)
