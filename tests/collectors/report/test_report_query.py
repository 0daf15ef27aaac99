"""What may be asked for, and how a span is put together from days, hours and minutes."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.ledger.usage import DAY, HOUR, MINUTE
from inferwatch_collectors.report.query import DIMENSIONS, MAX_TOP, Query, QueryError, Segment

NOW_S = dt.datetime(2026, 3, 15, 12, 34, 56, tzinfo=dt.UTC).timestamp()


def at(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp())


def test_the_last_thirty_days() -> None:
    """Without parameters: thirty whole days, today included, in all tables, of all tenants."""
    query = Query.of({}, NOW_S)
    assert (query.start_s, query.end_s) == (at("2026-02-14"), at("2026-03-16"))
    assert (query.by, query.tenant) == (DIMENSIONS, None)


@pytest.mark.parametrize(
    ("start", "end", "start_s", "end_s"),
    [
        ("2026-03-01", "2026-03-01", at("2026-03-01"), at("2026-03-02")),
        ("20260301", "20260301", at("2026-03-01"), at("2026-03-02")),
        ("2026-W09-7", "2026-W09-7", at("2026-03-01"), at("2026-03-02")),
        ("2026-03-01 00:00", "2026-03-01_10:30", at("2026-03-01"), at("2026-03-01T10:30")),
        ("2026-03-01 00:00", "2026-03-01 10:30", at("2026-03-01"), at("2026-03-01T10:30")),
        ("20260301T1030", "20260301T1031", at("2026-03-01T10:30"), at("2026-03-01T10:31")),
        ("2026-03-01T10:30", "2026-03-01T10:31", at("2026-03-01T10:30"), at("2026-03-01T10:31")),
        ("2026-03-01T10:00+02:00", "2026-03-02", at("2026-03-01T08:00"), at("2026-03-03")),
        ("2026-03-01T10:00Z", "2026-03-01T11:00Z", at("2026-03-01T10:00"), at("2026-03-01T11:00")),
    ],
)
def test_spans(start: str, end: str, start_s: int, end_s: int) -> None:
    """Days and minutes are UTC unless they say otherwise; a day given as the end is included."""
    query = Query.of({"from": start, "to": end}, NOW_S)
    assert (query.start_s, query.end_s) == (start_s, end_s)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"from": "yesterday"}, "from: expected a day or a minute"),
        ({"to": "2026-13-01"}, "to: expected a day or a minute"),
        ({"to": "9999-12-31"}, "to: expected a day or a minute"),
        ({"from": "2026-03-01T10:00:30"}, "from: expected a whole minute"),
        ({"from": "1970-01-01"}, "from: expected 2020-01-01 or later"),
        ({"from": "2026-03-20"}, "from: 2026-03-20T00:00 is not before `to`, 2026-03-16T00:00"),
        ({"by": "tenant,city"}, "by: expected some of tenant, user, feature, model, day"),
        ({"by": "user", "from": "2026-03-01T10:00"}, "by: users are added up by the day"),
        ({"top": "-1"}, "top: expected a number from 0"),
        ({"top": "9" * 400}, "top: expected a number from 0"),
        ({"top": "٣"}, "top: expected a number from 0"),
        ({"form": "csv"}, "form: there is no such parameter; there are from, to, by, tenant, top"),
    ],
)
def test_what_makes_no_sense_is_named(parameters: dict[str, str], message: str) -> None:
    """One line that begins with the parameter."""
    with pytest.raises(QueryError, match=message.replace("(", r"\(")):
        Query.of(parameters, NOW_S)


def test_tables_and_lines() -> None:
    """Tables come in the order asked for, once each; 0 lines means all of them."""
    query = Query.of({"by": "model, tenant,model", "top": "0", "tenant": "acme"}, NOW_S)
    assert (query.by, query.top, query.tenant) == (("model", "tenant"), MAX_TOP, "acme")


def test_users_are_left_out_where_they_are_not_known() -> None:
    """Of parts of days users cannot be told; nobody asked for them in particular, so the rest is given."""
    assert "user" not in Query.of({"from": "2026-03-01T10:00"}, NOW_S).by


def test_a_span_is_cut_at_days_and_hours() -> None:
    """Whole days in the middle, whole hours beside them, minutes at the ends."""
    query = Query(start_s=at("2026-03-01T22:58"), end_s=at("2026-03-04T01:01"))
    assert query.segments() == [
        Segment(MINUTE, at("2026-03-01T22:58"), at("2026-03-01T23:00")),
        Segment(HOUR, at("2026-03-01T23:00"), at("2026-03-02")),
        Segment(DAY, at("2026-03-02"), at("2026-03-04")),
        Segment(HOUR, at("2026-03-04"), at("2026-03-04T01:00")),
        Segment(MINUTE, at("2026-03-04T01:00"), at("2026-03-04T01:01")),
    ]


@given(start=st.integers(0, 5 * 1440), minutes=st.integers(1, 5 * 1440))
def test_segments_cover_the_span_once(start: int, minutes: int) -> None:
    """However a span lies, its segments join without gap or overlap, and each is whole spans of its level."""
    query = Query(start_s=start * 60, end_s=(start + minutes) * 60)
    segments = query.segments()
    assert segments[0].start_s == query.start_s
    assert segments[-1].end_s == query.end_s
    assert all(before.end_s == after.start_s for before, after in zip(segments, segments[1:], strict=False))
    for level, start_s, end_s in segments:
        assert start_s % level.seconds == end_s % level.seconds == 0
        assert start_s < end_s
    assert len(segments) <= 5
