"""engines: the profiles, as data that other parts must agree with."""

import msgspec
import pytest
from specimens import SPECIMENS

from inferwatch.engines import AUTO, PROFILES, UNKNOWN, Asked, Cached, Profile, profile_of
from inferwatch.settings.traffic import Upstream
from inferwatch_collectors.dialects.select import choose
from inferwatch_collectors.engine.names import BY_ENGINE


def test_every_profile_can_be_configured() -> None:
    """And nothing else, but for `auto`."""
    (field,) = [field for field in msgspec.structs.fields(Upstream) if field.name == "engine"]
    literal = field.type.__args__[0] if hasattr(field.type, "__metadata__") else field.type
    assert set(literal.__args__) == {AUTO, *PROFILES}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_metrics_are_read_where_a_profile_says_so(profile: Profile) -> None:
    """Under that name in the table of names."""
    assert (profile.metrics in BY_ENGINE) is bool(profile.metrics)


def test_what_nobody_knows_is_asked_for_nothing() -> None:
    """An engine of a name that is not known, or not known yet."""
    assert profile_of("") is profile_of("something new") is UNKNOWN
    assert UNKNOWN.asked is Asked.NOTHING
    assert not UNKNOWN.asked_details


def test_cached_tokens_are_a_subset_where_a_profile_says_so() -> None:
    """Booked cached tokens never exceed the booked prompt, also where the API counts them apart."""
    assert PROFILES["anthropic"].cached is Cached.APART
    for specimen in SPECIMENS:
        expected = specimen.expected
        if expected.cached is not None and expected.prompt is not None:
            assert expected.cached <= expected.prompt, specimen.name


def test_every_specimen_s_route_is_known() -> None:
    """No wire format is tested on a route that nobody would take."""
    for specimen in SPECIMENS:
        assert choose("POST", specimen.path, "", False).route != "other", specimen.name
