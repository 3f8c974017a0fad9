import random
import re
import string

import pytest

from openworks.gateway.guard.policies import BUILT_IN
from tests.unit.gateway.guard.support import found, redacted

_RANDOM = random.Random(7)


def _chars(count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(_RANDOM.choice(alphabet) for _ in range(count))


_HEX = "0123456789abcdef"
_JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0."
    "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
)
_KEY_BODY = "\n".join(_chars(64, string.ascii_letters + string.digits + "+/") for _ in range(20))
_PRIVATE_KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{_KEY_BODY}\nAw==\n-----END RSA PRIVATE KEY-----"

SECRETS = {
    "anthropic-key": f"sk-ant-api03-{_chars(93)}AA",
    "atlassian-token": f"ATATT3xFfGF0{_chars(160)}=1A2B3C4D",
    "aws-access-key-id": "AKIA" + _chars(16, string.ascii_uppercase + "234567"),
    "aws-secret-key": _chars(40),
    "azure-storage-key": _chars(86) + "==",
    "bearer-token": _chars(40),
    "cloudflare-origin-ca-key": f"v1.0-{_chars(24, _HEX)}-{_chars(146, _HEX)}",
    "cloudflare-token": f"cfut_{_chars(40)}{_chars(8, _HEX)}",
    "databricks-token": f"dapi{_chars(32, _HEX)}",
    "digitalocean-token": f"dop_v1_{_chars(64, _HEX)}",
    "discord-bot-token": f"M{_chars(23)}.{_chars(6)}.{_chars(27)}",
    "docker-token": f"dckr_pat_{_chars(27)}",
    "github-token": f"ghp_{_chars(36)}",
    "gitlab-token": f"glpat-{_chars(20)}",
    "google-api-key": f"AIza{_chars(35)}",
    "google-oauth-token": f"ya29.{_chars(60)}",
    "google-client-secret": f"GOCSPX-{_chars(28)}",
    "grafana-token": f"glsa_{_chars(32)}_{_chars(8, _HEX)}",
    "groq-key": f"gsk_{_chars(52)}",
    "huggingface-token": f"hf_{_chars(34, string.ascii_letters)}",
    "jwt": _JWT,
    "linear-key": f"lin_api_{_chars(40)}",
    "mailchimp-key": f"{_chars(32, _HEX)}-us12",
    "mailgun-key": f"key-{_chars(32, _HEX)}",
    "notion-token": f"ntn_{_chars(46)}",
    "npm-token": f"npm_{_chars(36)}",
    "openai-key": f"sk-proj-{_chars(74)}T3BlbkFJ{_chars(74)}",
    "openrouter-key": f"sk-or-v1-{_chars(64, _HEX)}",
    "openworks-key": f"sk-ow-{_chars(43)}",
    "perplexity-key": f"pplx-{_chars(48)}",
    "private-key": _PRIVATE_KEY,
    "putty-private-key": "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: a key\n"
    f"Private-Lines: 1\n{_chars(64)}\nPrivate-MAC: {_chars(64, _HEX)}",
    "pypi-token": f"pypi-AgEIcHlwaS5vcmc{_chars(120)}",
    "replicate-token": f"r8_{_chars(37)}",
    "sendgrid-key": f"SG.{_chars(22)}.{_chars(43)}",
    "shopify-token": f"shpat_{_chars(32, _HEX)}",
    "slack-token": "xoxb-" + f"{_chars(11, '123456789')}-{_chars(12, '123456789')}-{_chars(24)}",
    "slack-webhook": f"hooks.slack.com/services/T{_chars(8)}/B{_chars(8)}/{_chars(24)}",
    "square-secret": f"sq0csp-{_chars(43)}",
    "stripe-key": "sk_live_" + _chars(24),
    "telegram-bot-token": f"123456789:AA{_chars(33)}",
    "twilio-key": f"SK{_chars(32, _HEX)}",
    "url-password": "s3cr3t-pass",
    "vault-token": f"hvs.{_chars(90)}",
    "xai-key": f"xai-{_chars(80)}",
}
_AROUND = {
    "aws-secret-key": ('aws_secret_access_key = "', '"'),
    "azure-storage-key": ("AccountName=me;AccountKey=", ";"),
    "bearer-token": ("Authorization: Bearer ", "\n"),
    "url-password": ("postgres://admin:", "@db.internal/x"),
}


def test_every_credential_entry_has_an_example() -> None:
    assert set(SECRETS) == {rule.entry_id for rule in BUILT_IN["credentials"]}


@pytest.mark.parametrize("entry_id", SECRETS)
def test_a_credential_is_found_whole_wherever_it_stands(entry_id: str) -> None:
    secret = SECRETS[entry_id]
    before, after = _AROUND.get(entry_id, ("", ""))
    for left, right in (("", ""), ("my key: ", " is it"), ('"', '",'), ("(", ")."), ("é", "é")):
        text = f"{left}{before}{secret}{after}{right}"
        if left == "é" and entry_id == "private-key":
            continue
        assert f"{entry_id}:{secret}" in found(text), text
        assert secret not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "task-ant-hill-" + "forest" * 8,
        "ghp_short",
        "the ghp_ prefix marks a token of GitHub",
        "AKIATOOSHORT and AKIALOWERCASEaaaaaaa",
        "bearer of bad news",
        "eyJhbGciOiJI.not.json",
        "eyJub3QganNvbiBhdCBhbGwh.eyJub3QganNvbiBhdCBhbGwh.x",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
        "https://example.com:8080/path@version",
        "mysql://localhost/db",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "550e8400-e29b-41d4-a716-446655440000",
        "key-value store, sk-learn, hf_hub, r8_",
    ],
)
def test_what_only_looks_like_a_credential_is_left_alone(text: str) -> None:
    assert found(text) == []


def test_a_private_key_is_redacted_to_its_end_line_and_no_further() -> None:
    text = f"here:\n{_PRIVATE_KEY}\nThanks a lot"
    assert redacted(text) == "here:\n[REDACTED:private-key]\nThanks a lot"
    in_json = f'{{"key": "{_PRIVATE_KEY}\n"}}'.replace("\n", "\\n")
    assert redacted(in_json) == '{"key": "[REDACTED:private-key]\\n"}'


@pytest.mark.parametrize(
    "number",
    [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "3782 822463 10005",
        "6011111111111117",
        "30569309025904",
        "3530111333300000",
        "6200000000000005",
        "4222222222222",
    ],
)
def test_cards_of_every_brand_are_found(number: str) -> None:
    assert found(f"pay with {number}, please") == [f"card:{number}"]


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",  # wrong checksum
        "4111 1111 1111 1112",
        "1234567812345670",  # right checksum, no brand
        "9111111111111111",
        "41111111111111",  # right brand, no such length
        "x4111111111111111",
        "41111111111111110000000000",
        "0.4111111111111111",
        "1732112345678",  # milliseconds
        "2026-11-20 13:30:49 0000",
    ],
)
def test_numbers_that_are_no_cards_are_left_alone(text: str) -> None:
    assert found(text) == []


def test_digits_after_a_card_stay() -> None:
    assert redacted("4111 1111 1111 1111 12 29") == "[REDACTED:card] 12 29"


@pytest.mark.parametrize(
    "number",
    [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "FR1420041010050500013M02606",
        "NL91ABNA0417164300",
        "AT61 1904 3002 3457 3201",
        "NO93 8601 1117 947",
    ],
)
def test_ibans_are_found(number: str) -> None:
    assert found(f"to {number} AND soon") == [f"iban:{number}"]


@pytest.mark.parametrize("text", ["DE88370400440532013000", "DE89 3704", "AB12 CDEF GHIJ KLMN"])
def test_wrong_ibans_are_left_alone(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("entry_id", "value"),
    [
        ("email", "jo.doe+news@mail.example.co.uk"),
        ("email", "o'neil_1@example.com"),
        ("phone", "+49 30 901820"),
        ("phone", "+1 (415) 555-2671"),
        ("phone", "+442079460018"),
        ("phone", "415-555-2671"),
        ("phone", "(415) 555-2671"),
    ],
)
def test_addresses_and_phone_numbers_are_found(entry_id: str, value: str) -> None:
    assert found(f"reach me: {value}, or not.") == [f"{entry_id}:{value}"]


@pytest.mark.parametrize(
    "text",
    [
        "user@localhost",
        "@decorator",
        "a @ b.com",
        "..@example.com",
        "x+1234567890",
        "3 + 49",
        "v1.2.3+20130313144700",
        "192.168.100.200",
        "2026-11-20",
        "555-2671",
    ],
)
def test_what_only_looks_like_an_address_is_left_alone(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("entry_id", "value", "wrong"),
    [
        ("be-national-number", "85.07.30-033.28", "85.07.30-033.29"),
        ("br-cpf", "390.533.447-05", "390.533.447-06"),
        ("ca-sin", "123-456-782", "123-456-783"),
        ("ch-ahv", "756.9217.0769.85", "756.9217.0769.84"),
        ("cn-resident-id", "360426199101010071", "360426199101010072"),
        ("de-tax-id", "36 574 261 809", "36 574 261 808"),
        ("es-dni", "54362315K", "54362315L"),
        ("es-nie", "X-2482300W", "X-2482300A"),
        ("fi-hetu", "131052-308T", "131052-308U"),
        ("fr-nir", "2 95 10 99 126 111 93", "2 95 10 99 126 111 94"),
        ("in-aadhaar", "2341 2341 2346", "2341 2341 2347"),
        ("in-pan", "ACUPA7085R", "ACUQA7085R"),
        ("it-codice-fiscale", "RCCMNL83S18D969H", "RCCMNL83S18D969X"),
        ("kr-rrn", "971013-1019901", "971013-1019902"),
        ("mx-curp", "BOXW310820HNERXN09", "BOXW310820HNERXN08"),
        ("pl-pesel", "44051401359", "44051401358"),
        ("se-personnummer", "880320-0016", "880320-0018"),
        ("uk-nhs", "943 476 5870", "943 476 5871"),
        ("uk-nino", "AB 12 34 56 C", "BG 12 34 56 C"),
        ("us-ssn", "536-90-4399", "000-90-4399"),
    ],
)
def test_national_ids_are_found_by_their_checksums(entry_id: str, value: str, wrong: str) -> None:
    assert f"{entry_id}:{value}" in found(f"id {value}.")
    assert not any(entry.startswith(entry_id) for entry in found(f"id {wrong}."))


def test_overlapping_finds_become_one_marker() -> None:
    text = "Authorization: Bearer " + SECRETS["github-token"]
    assert redacted(text) == "Authorization: Bearer [REDACTED:bearer-token]"


def _ordinary_lines() -> list[str]:
    rng = random.Random(3)
    sentence = (
        "the server keeps its answers for an hour and forgets them when memory runs out while "
        "every client waits in line until a slot is free again so that none of them starves"
    )
    words = sentence.split()
    prose = [" ".join(rng.choices(words, k=rng.randint(6, 18))).capitalize() for _ in range(200)]
    code = [
        f"    def {rng.choice(words)}_{n}(self, key: str = '{rng.choice(words)}') -> int:"
        for n in range(60)
    ]
    code += [
        f"        return self._{rng.choice(words)}[{n}] << {n % 31} | 0x{n:08x}" for n in range(60)
    ]
    code += [
        f"import {a}.{b}; assert {a}@{b} == [{n}, {n * 7}, -{n}.5e-{n}]"
        for n, (a, b) in enumerate(zip(words, reversed(words), strict=True))
    ]
    logs = [
        f"2026-11-{n % 28 + 1:02d}T12:{n % 60:02d}:07.{n:06d}Z INFO "
        f"10.0.{n % 256}.{n * 3 % 256}:{8000 + n} GET /v1/items/{n * 7919} "
        f"page={n} 200 {n * 31}ms id={rng.getrandbits(64):016x}"
        for n in range(120)
    ]
    base64_noise = [_chars(76, string.ascii_letters + string.digits + "+/") for _ in range(150)]
    ids = [f"{rng.getrandbits(128):032x} sha1 {rng.getrandbits(160):040x}" for _ in range(100)]
    uuids = [
        re.sub("(.{8})(.{4})(.{4})(.{4})(.{12})", r"\1-\2-\3-\4-\5", f"{rng.getrandbits(128):032x}")
        for _ in range(200)
    ]
    amounts = [
        f"{n}. {n * 13.37:.2f} EUR, {n * 1000:,} items, {n}/{n + 1}, {n}%" for n in range(60)
    ]
    return prose + code + logs + base64_noise + ids + uuids + amounts


def test_ordinary_prose_code_logs_and_noise_hold_nothing() -> None:
    lines = _ordinary_lines()
    assert len(lines) > 900
    assert [hit for line in lines for hit in found(line)] == []


def test_what_the_detect_secrets_library_finds_in_the_examples_is_found_here_too() -> None:
    plugins = pytest.importorskip("detect_secrets.core.plugins.util")
    names = {
        "GitHubTokenDetector",
        "GitLabTokenDetector",
        "SendGridDetector",
        "StripeDetector",
        "SlackDetector",
        "OpenAIDetector",
        "AWSKeyDetector",
        "PypiTokenDetector",
        "SquareOAuthDetector",
        "MailchimpDetector",
        "TwilioKeyDetector",
        "JwtTokenDetector",
        "TelegramBotTokenDetector",
        "DiscordBotTokenDetector",
        "AzureStorageKeyDetector",
    }
    detectors = [
        plugin()
        for plugin in plugins.get_mapping_from_secret_type_to_class().values()
        if plugin.__name__ in names
    ]
    assert len(detectors) == len(names)
    seen = 0
    for entry_id, secret in SECRETS.items():
        before, after = _AROUND.get(entry_id, ("", ""))
        text = f"{before}{secret}{after}"
        theirs = {hit for detector in detectors for hit in detector.analyze_string(text)}
        seen += bool(theirs)
        assert not theirs or found(text), entry_id
    assert seen >= len(names)
