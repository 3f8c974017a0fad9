from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from openworks.engines.stops import StopCutter
from openworks.ports.text import TokenLogprob

texts = st.text("abc", max_size=30)
stop_lists = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=4)


def cut(text: str, stops: list[str]) -> str:
    """The answer as it must be: up to the stop that is complete first."""
    places = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return text[: min(places)[1]] if places else text


def pieces(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[begin:end] for begin, end in pairwise(bounds)]


@given(texts, stop_lists, st.lists(st.integers(0, 100), max_size=10))
@example("abcab", ["abc", "bca"], [2, 3])
@example("baa", ["a", "baa"], [2])
def test_answer_ends_before_the_first_stop_however_its_pieces_fall(
    text: str, stops: list[str], places: list[int]
) -> None:
    cutter = StopCutter(stops)
    parts = pieces(text, places)
    said = ""
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        said += cutter.feed(part, (), is_last=is_last)[0]
        if cutter.found:
            break
    assert said == cut(text, stops)
    assert cutter.found == any(stop in text for stop in stops)


@given(texts, stop_lists)
def test_nothing_is_said_that_a_later_piece_could_take_back(text: str, stops: list[str]) -> None:
    cutter = StopCutter(stops)
    said = ""
    for place, letter in enumerate(text):
        if cutter.found:
            break
        said += cutter.feed(letter, (), is_last=False)[0]
        assert cut(text[: place + 1], stops).startswith(said)


@given(texts, stop_lists)
def test_log_probabilities_are_those_of_the_tokens_that_were_said(
    text: str, stops: list[str]
) -> None:
    cutter = StopCutter(stops)
    tokens: list[TokenLogprob] = []
    said = ""
    for place, letter in enumerate(text):
        token = TokenLogprob(token=letter, bytes=(ord(letter),), logprob=-1.0)
        ready, found = cutter.feed(letter, (token,), is_last=place == len(text) - 1)
        said += ready
        tokens += found
        if cutter.found:
            break
    assert "".join(token.token for token in tokens) == said
