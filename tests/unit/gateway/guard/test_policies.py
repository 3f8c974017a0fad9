import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.gateway.guard.policies import BUILT_IN, compile_policies
from openworks.gateway.guard.prefixes import beginnings, parse
from openworks.gateway.guard.rules import Rule
from openworks.gateway.guard.scanner import Scanner, compile_pattern
from openworks.gateway.guard.verdicts import dlp_header, scan_request, scan_texts
from openworks.ports.gateways import DlpPolicy, DlpProfile
from tests.unit.gateway.guard.support import compiled, custom, gateway, redacted, side
from tests.unit.gateway.guard.test_detectors import SECRETS

TOKEN = SECRETS["github-token"]


def test_the_profiles_have_the_ids_that_policies_name() -> None:
    assert set(BUILT_IN) == {"credentials", "financial", "contact", "national-ids"}


def test_a_gateway_without_policies_looks_at_nothing() -> None:
    policies = compile_policies(gateway())
    assert policies.request is None
    assert policies.response is None
    assert scan_request(policies, [TOKEN]) is None


def test_a_policy_looks_at_its_sides_only() -> None:
    policy = DlpPolicy(
        id="p", action="BLOCK", checks=frozenset({"REQUEST"}), profiles=("credentials",)
    )
    policies = compile_policies(gateway(policy))
    assert policies.response is None
    verdict = scan_request(policies, ["fine", TOKEN])
    assert verdict is not None
    assert verdict.blocked
    assert verdict.code == 2029


def test_a_flag_changes_nothing() -> None:
    verdict = scan_texts(side(compiled("FLAG")), [f"x {TOKEN}"])
    assert (verdict.action, verdict.code) == ("FLAG", None)
    assert verdict.texts == (f"x {TOKEN}",)
    assert verdict.labels == ("github-token",)


def test_the_most_severe_action_wins_and_only_its_profiles_are_redacted() -> None:
    policies = compile_policies(
        gateway(
            DlpPolicy(id="watch", action="FLAG", profiles=("credentials", "contact")),
            DlpPolicy(id="hide", action="REDACT", profiles=("credentials",)),
        )
    )
    verdict = scan_request(policies, [f"{TOKEN} of me@example.com"])
    assert verdict is not None
    assert verdict.action == "REDACT"
    assert verdict.texts == ("[REDACTED:github-token] of me@example.com",)
    assert verdict.policy_ids == {"credentials": ("watch", "hide"), "contact": ("watch",)}


def test_the_header_names_profiles_entries_policies_and_sides() -> None:
    request = scan_texts(side(compiled("FLAG")), ["4111 1111 1111 1111 me@example.com"])
    clean = scan_texts(side(compiled("FLAG")), ["hello"])
    assert dlp_header(clean, None) is None
    assert dlp_header(request, clean) == (
        '{"findings":['
        '{"profile":{"context":{},"entry_ids":["card"],"profile_id":"financial"},'
        '"policy_ids":["policy"],"check":"RESPONSE"},'
        '{"profile":{"context":{},"entry_ids":["email"],"profile_id":"contact"},'
        '"policy_ids":["policy"],"check":"RESPONSE"}],"action":"FLAG"}'
    )


def test_findings_are_bounded_and_entries_are_not() -> None:
    verdict = scan_texts(side(compiled()), ["me@example.com " * 1000 + TOKEN])
    assert len(verdict.findings) == 256
    assert verdict.labels == ("email", "github-token")
    assert "me@" not in verdict.texts[0]


def test_a_policy_of_an_unknown_profile_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="'p' names the profile 'nope'"):
        compile_policies(gateway(DlpPolicy(id="p", action="FLAG", profiles=("nope",))))


def test_a_custom_profile_may_not_take_the_name_of_a_built_in_one() -> None:
    with pytest.raises(InvalidRequestError, match="'contact'"):
        custom(DlpProfile(id="contact", patterns={"x": "x"}))


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(a)\1", "usable"),
        (r"a(?=b)", "usable"),
        (r"(?<!x)y", "usable"),
        (r"a++", "usable"),
        ("(", "usable"),
        ("[", "usable"),
        ("a*", "empty"),
        ("x?", "empty"),
        (r"\b", "empty"),
        (r"^|x", "empty"),
        ("a{5000}", "usable"),
        ("((a{100}){100}){100}", "usable"),
        ("x" * 513, "512"),
        (r"\p{Greek}", "usable"),
    ],
)
def test_patterns_that_cannot_be_searched_in_linear_time_are_refused(
    pattern: str, why: str
) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        custom(DlpProfile(id="mine", patterns={"entry": pattern}))


def test_a_profile_has_at_most_so_many_words() -> None:
    with pytest.raises(InvalidRequestError, match="1000 words"):
        custom(DlpProfile(id="mine", words={"e": tuple(f"w{n}" for n in range(1001))}))
    with pytest.raises(InvalidRequestError, match="1 to 128"):
        custom(DlpProfile(id="mine", words={"e": ("y" * 129,)}))
    with pytest.raises(InvalidRequestError, match="1 to 128"):
        custom(DlpProfile(id="mine", words={"e": (" ",)}))


def test_a_catastrophic_pattern_is_searched_without_backtracking() -> None:
    # Python's own engine would need some 2 ** 100000 steps for these.
    policies = custom(
        DlpProfile(id="mine", patterns={"a": "(a+)+$", "b": "(a|aa)+b", "c": "(.*a){20}c"})
    )
    assert redacted("a" * 100_000 + "!", policies) == "a" * 100_000 + "!"


def test_an_empty_match_at_the_end_of_a_text_ends_the_search() -> None:
    rule = Rule(profile_id="mine", entry_id="p", pattern=r"x|\b")
    found = Scanner([(rule,)]).find(b"x-a")
    assert [(match.start, match.end) for match in found] == [(0, 1)]


def test_patterns_are_found_as_they_are_written() -> None:
    policies = custom(
        DlpProfile(
            id="mine",
            patterns={"order": r"(?i)ORD-(\d{4})", "line": r"(?m)^secret: .+$", "end": r"bye$"},
        )
    )
    assert redacted("my ord-1234, ord-12", policies) == "my [REDACTED:order], ord-12"
    assert redacted("a\nsecret: x y\nb", policies) == "a\n[REDACTED:line]\nb"
    assert redacted("bye bye", policies) == "bye [REDACTED:end]"


def test_words_are_found_whole_and_whatever_their_case() -> None:
    policies = custom(
        DlpProfile(id="mine", words={"name": ("Falcon", "élan vital", "falcon nine", "C++")})
    )
    assert redacted("FALCON, falcons Falcon-9", policies) == (
        "[REDACTED:name], falcons [REDACTED:name]-9"
    )
    assert redacted("Élan Vital délan vital élan vitale", policies) == (
        "[REDACTED:name] délan vital élan vitale"
    )
    assert redacted("falcon ninety, falcon nine", policies) == (
        "[REDACTED:name] ninety, [REDACTED:name]"
    )
    assert redacted("in C++ and D", policies) == "in [REDACTED:name] and D"


@pytest.mark.parametrize("entry_id", SECRETS)
def test_every_beginning_of_a_credential_is_open(entry_id: str) -> None:
    (rule,) = [rule for rule in BUILT_IN["credentials"] if rule.entry_id == entry_id]
    whole = compile_pattern(rule.pattern)
    prefix = compile_pattern(rf"(?:{beginnings(parse(rule.pattern))})\z")
    context = {
        "aws-secret-key": 'secret_access_key="',
        "azure-storage-key": "AccountKey=",
        "bearer-token": "bearer ",
        "url-password": "https://joe:",
    }.get(entry_id, "")
    text = (context + SECRETS[entry_id] + "@" * (entry_id == "url-password")).encode()
    match = whole.search(text)
    assert match is not None
    for size in range(match.start() + 1, match.end() + 1):
        opened = prefix.search(text[:size])
        assert opened is not None
        assert opened.start() <= match.start(), text[:size]


_ATOMS = st.sampled_from(["a", "b", "[ab]", "[^a]", ".", r"\d", r"\bß", r"\b", "(?i:A)", "é"])
_PATTERNS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["?", "*", "+", "{2}", "{1,3}", "{2,}", "*?"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)


@given(pattern=_PATTERNS, text=st.text("abßé1 ", max_size=8), cut=st.integers(0, 8))
def test_the_beginning_of_any_match_is_open(pattern: str, text: str, cut: int) -> None:
    """Wherever a text is cut inside a match, its first half is open from that match on."""
    raw = text.encode()
    match = compile_pattern(pattern).search(raw)
    at = len(text[:cut].encode())
    if match is None or not match.start() < at <= match.end():
        return
    prefix = compile_pattern(rf"(?:{beginnings(parse(pattern))})\z")
    opened = prefix.search(raw[:at])
    assert opened is not None
    assert opened.start() <= match.start()
