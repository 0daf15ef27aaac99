"""makeup: what a reference is made of, for whoever pins it."""

from collections.abc import Callable, Sequence

import msgspec
import pytest

from inferwatch.record import RequestRecord
from inferwatch_collectors.drift.features import Direction, features
from inferwatch_collectors.drift.following import Followed, Heard
from inferwatch_collectors.drift.makeup import Makeup, MakeupState, kind_of
from inferwatch_collectors.drift.text import read
from inferwatch_collectors.drift.trigrams import Codebook
from inferwatch_collectors.drift.words import made_of, stream_of

ENGLISH = "The quick brown fox jumps over the lazy dog, and then it goes back to the house that he had seen before."
TEXTS = {
    "english": ENGLISH,
    "german": "Ich habe gestern mit dem Hund einen langen Spaziergang durch den Wald gemacht, und es war nicht kalt.",
    "french": "Je ne sais pas si nous avons le temps de faire les courses avant que les enfants soient dans la maison.",
    "spanish": "No sé si tenemos tiempo para hacer las compras antes de que los niños estén en la casa de su abuela.",
    "italian": "Non so se abbiamo il tempo di fare la spesa prima che i bambini siano nella casa della nonna.",
    "portuguese": "Não sei se temos tempo para fazer as compras antes que os meninos estejam na casa da sua avó.",
    "dutch": "Ik weet niet of we de tijd hebben om de boodschappen te doen voor de kinderen in het huis zijn.",
    "cyrillic": "Я не знаю, есть ли у нас время, чтобы сходить в магазин до того, как дети придут домой.",
    "cjk": "孩子们回家之前我们有没有时间去买东西，我不知道。",
    "other_script": "لا أعرف إذا كان لدينا وقت للتسوق قبل أن يعود الأطفال إلى المنزل",
    "other": "for (int i = 0; i < n; i++) { sum += values[i] * weights[i]; } return sum / total;",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_is_of_its_language_or_script(kind: str) -> None:
    """By its values alone; without a text it is of none."""
    assert kind_of(read(TEXTS[kind], Direction.PROMPT), Direction.PROMPT) == kind
    assert kind_of(read(TEXTS[kind], Direction.PROMPT), Direction.ANSWER) == ""


def test_it_is_counted_and_written_down() -> None:
    """Votes, sessions, hours of the week, shares of kinds; and nothing is lost on the way to the file."""
    makeup = Makeup()
    makeup.requests = 40
    for number in range(10):
        kind = "german" if number < 3 else "english"
        makeup.take(read(TEXTS[kind], Direction.PROMPT), number % 4, session=number % 2 == 0, texts=True)
    again = Makeup(msgspec.msgpack.decode(msgspec.msgpack.encode(makeup.state()), type=MakeupState))
    for each in (makeup, again):
        assert (each.requests, each.votes, each.sessions, each.hours) == (40, 10, 5, 4)
        assert each.shares(Direction.PROMPT) == {"english": 0.7, "german": 0.3}
        assert each.shares(Direction.ANSWER) == {}
    assert Makeup(MakeupState(1, 1, 1, b"\xff" * 30, ())).hours == 168


def test_whoever_pins_is_shown_it(request_of: Callable[..., RequestRecord]) -> None:
    """While it is learnt, and as a part of the reference afterwards; an older version's reference says nothing of it."""
    followed = Followed("m", "acme", features(text=True), 0.0)
    book = Codebook(b"a secret of the installation")
    assert list(made_of(stream_of(followed, 1))) == []
    for number in range(600):
        followed.makeup.requests += 3
        values = read(ENGLISH, Direction.PROMPT) | read(TEXTS["german"], Direction.ANSWER)
        buckets: dict[Direction, Sequence[int]] = {
            direction: book.buckets(ENGLISH) for direction in (Direction.PROMPT, Direction.ANSWER)
        }
        followed.vote(request_of(session=f"s{number}"), Heard(values, buckets), 0, 0.0, number % 24)
    lines = list(made_of(stream_of(followed, 1)))
    assert lines == [
        "  made of 89 votes, 89 of sessions or users, from 1800 requests in 24 of the week's 168 hours",
        "  prompts: 100% english",
        "  answers: 100% german",
    ]
