from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openworks.storage.logbook.shapes import (
    BOUNDS_MS,
    DAY_S,
    HOUR_S,
    LEVELS_S,
    MINUTE_S,
    MINUTES_KEPT_S,
    NUM_BUCKETS,
    quantiles_ms,
)
from openworks.storage.sql.rollups import Span, spans

NOW_S = 1_790_078_400.0
TIMES = st.floats(NOW_S - 40 * DAY_S, NOW_S + DAY_S)


@given(since_s=TIMES, until_s=TIMES)
def test_spans_meet_end_to_end_and_cover_the_range(since_s: float, until_s: float) -> None:
    found = list(spans(since_s, until_s, levels_s=LEVELS_S, now_s=NOW_S))

    if until_s <= since_s:
        length_s = sum((span.end_s or 0) - (span.begin_s or 0) for span in found)
        assert length_s <= HOUR_S
        return
    ordered = sorted(found, key=lambda span: span.begin_s or 0)
    first, last = ordered[0].begin_s, ordered[-1].end_s
    assert first is not None
    assert last is not None
    assert since_s - HOUR_S < first <= since_s
    assert until_s <= last < until_s + HOUR_S
    assert [span.end_s for span in ordered[:-1]] == [span.begin_s for span in ordered[1:]]
    assert len(found) <= 5


@given(since_s=TIMES, until_s=TIMES)
def test_spans_consist_of_whole_sums_that_are_still_kept(since_s: float, until_s: float) -> None:
    for span in spans(since_s, until_s, levels_s=LEVELS_S, now_s=NOW_S):
        assert span.begin_s is not None
        assert span.end_s is not None
        assert span.begin_s % span.level_s == span.end_s % span.level_s == 0
        if span.level_s == MINUTE_S:
            assert span.begin_s >= NOW_S - MINUTES_KEPT_S


def test_range_without_ends_is_read_from_the_coarsest_sums() -> None:
    assert list(spans(None, None, levels_s=LEVELS_S, now_s=NOW_S)) == [
        Span(level_s=DAY_S, begin_s=None, end_s=None)
    ]


@given(st.lists(st.floats(0.1, 1e6), min_size=1), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_quantile_is_in_the_bucket_of_the_true_one(durations: list[float], share: float) -> None:
    counts = [0] * NUM_BUCKETS
    for duration in durations:
        counts[sum(bound < duration for bound in BOUNDS_MS)] += 1
    ordered = sorted(durations)
    rank = share * len(ordered)
    true_ms = next(value for place, value in enumerate(ordered, 1) if place >= rank)

    found = quantiles_ms(counts, [share])

    assert found is not None
    (estimate,) = found
    inside = max(1.0, min(true_ms, BOUNDS_MS[-1]))
    assert inside / 1.5001 <= estimate <= inside * 1.5001


def test_no_calls_have_no_quantiles() -> None:
    assert quantiles_ms([0] * NUM_BUCKETS, [0.5]) is None
