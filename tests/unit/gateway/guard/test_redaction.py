from openworks.gateway.guard.redaction import redact_bytes, redact_text
from tests.unit.gateway.guard.test_detectors import SECRETS


def test_credentials_leave_our_own_logs() -> None:
    text = f"POST https://api.example.com failed: Authorization: Bearer {SECRETS['openai-key']}"
    assert redact_text(text) == (
        "POST https://api.example.com failed: Authorization: Bearer [REDACTED:bearer-token]"
    )


def test_our_own_keys_leave_our_own_logs() -> None:
    assert redact_text(f"key {SECRETS['openworks-key']}") == "key [REDACTED:openworks-key]"


def test_what_holds_no_credential_is_the_same_object() -> None:
    text = "me@example.com could not reach 4111 1111 1111 1111"
    assert redact_text(text) is text
    raw = text.encode()
    assert redact_bytes(raw) is raw
