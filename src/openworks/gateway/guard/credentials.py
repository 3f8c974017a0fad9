"""The profile `credentials`: API keys, tokens, passwords in URLs and private keys.

Only forms that announce themselves, by a prefix or a name beside them: a bare random string may be
a secret as well as a checksum, and redacting every checksum would break the answers of a gateway.
The prefixes are those that the issuers document.
"""

from __future__ import annotations

import base64
import binascii
import json

from openworks.gateway.guard.rules import Check, Rule

PROFILE_ID = "credentials"

_WORD = "[A-Za-z0-9_-]"


def _check_jwt(text: bytes, start: int, end: int) -> int:
    """Keep what has a JSON object as its header; other dotted base64 is not a token."""
    header = text[start:end].split(b".", 1)[0]
    try:
        value = json.loads(base64.urlsafe_b64decode(header + b"=" * (-len(header) % 4)))
    except (binascii.Error, ValueError):
        return 0
    return end if isinstance(value, dict) else 0


def _check_varied(text: bytes, start: int, end: int) -> int:
    """Refuse placeholders: what repeats a few characters, as in `sk-xxxxxxxx`."""
    return end if len(set(text[start:end])) >= 10 else 0


_SPACE = r"(?:\s|\\+[nrt])"
_LINE = (
    r"[ -\[\]-~]*"  # ASCII but the backslash: classes beyond ASCII make programs ten times larger
)
_PEM_HEADER = rf"(?:{_SPACE}*(?:Proc-Type|DEK-Info|Version|Comment|Hash|Charset): {_LINE})"
_PRIVATE_KEY = (
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    rf"{_PEM_HEADER}*(?:{_SPACE}*[A-Za-z0-9+/=]{{16,}})*"
    rf"(?:(?:{_SPACE}*[A-Za-z0-9+/=]+)?{_SPACE}*-----END [A-Z0-9 ]{{0,40}}-----)?"
)

_PATTERNS: dict[str, str] = {
    "anthropic-key": rf"\bsk-ant-[a-z0-9]{{2,16}}-{_WORD}{{32,}}",
    "atlassian-token": rf"\bATATT3{_WORD}{{50,}}(?:=[0-9A-F]{{8}})?",
    "aws-access-key-id": r"\b(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}\b",
    "aws-secret-key": (
        r"(?i:secret_?access_?key|aws_?secret(?:_?key)?)[\"'\s:=>\\]{1,8}([A-Za-z0-9/+]{40})\b"
    ),
    "azure-storage-key": r"\bAccountKey=([A-Za-z0-9+/]{86}==)",
    "bearer-token": r"\b[Bb]earer[ \t]{1,4}([A-Za-z0-9._~+/-]{20,}=*)",
    "cloudflare-origin-ca-key": r"\bv1\.0-[a-f0-9]{24}-[a-f0-9]{146}\b",
    "cloudflare-token": r"\bcf(?:ut|at|k)_[A-Za-z0-9]{40,}",
    "databricks-token": r"\bdapi[a-f0-9]{32}(?:-\d)?\b",
    "digitalocean-token": r"\bdo[opr]_v1_[a-f0-9]{64}\b",
    "discord-bot-token": rf"\b[MNO]{_WORD}{{23,25}}\.{_WORD}{{6}}\.{_WORD}{{27,38}}",
    "docker-token": rf"\bdckr_(?:pat|oat)_{_WORD}{{27,}}",
    "github-token": r"\b(?:gh[opsur]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{82})",
    "gitlab-token": (
        rf"\b(?:gl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas)-|GR1348941){_WORD}{{20,}}"
    ),
    "google-api-key": rf"\bAIza{_WORD}{{35}}",
    "google-oauth-token": rf"\bya29\.{_WORD}{{20,}}",
    "google-client-secret": rf"\bGOCSPX-{_WORD}{{28}}",
    "grafana-token": r"\bgl(?:sa|c)_[A-Za-z0-9+/_=]{32,}",
    "groq-key": r"\bgsk_[A-Za-z0-9]{52}\b",
    "huggingface-token": r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}",
    "jwt": rf"\beyJ{_WORD}{{8,}}\.eyJ{_WORD}{{8,}}(?:\.{_WORD}*)?",
    "linear-key": r"\blin_api_[A-Za-z0-9]{40}\b",
    "mailchimp-key": r"\b[0-9a-f]{32}-us\d{1,2}\b",
    "mailgun-key": r"\bkey-[0-9a-f]{32}\b",
    "notion-token": r"\b(?:ntn_[A-Za-z0-9]{40,}|secret_[A-Za-z0-9]{43}\b)",
    "npm-token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "openai-key": (
        rf"\bsk-(?:(?:proj|svcacct|admin|None)-{_WORD}{{40,}}|[A-Za-z0-9]{{32,}}\b"
        rf"|{_WORD}{{20,}}T3BlbkFJ[A-Za-z0-9]{{20}})"
    ),
    "openrouter-key": rf"\bsk-or-(?:v\d+-)?{_WORD}{{32,}}",
    "openworks-key": rf"\bsk-ow-{_WORD}{{20,}}",
    "perplexity-key": r"\bpplx-[A-Za-z0-9]{40,}",
    "private-key": _PRIVATE_KEY,
    "putty-private-key": (
        r"PuTTY-User-Key-File-[23]: ?[a-z0-9@.-]*"
        rf"(?:(?:\r|\n|\\+[rn])+(?:Comment:{_LINE}|[A-Z][A-Za-z0-9-]+: ?[a-z0-9-]*"
        r"|[A-Za-z0-9+/=]{16,}|[A-Za-z0-9+/]{1,15}={1,2}))*"
    ),
    "pypi-token": rf"\bpypi-AgE{_WORD}{{50,}}",
    "replicate-token": r"\br8_[A-Za-z0-9]{37}\b",
    "sendgrid-key": rf"\bSG\.{_WORD}{{22}}\.{_WORD}{{43}}",
    "shopify-token": r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b",
    "slack-token": rf"\b(?:xox[abceoprs]-{_WORD}{{18,}}|xapp-\d-{_WORD}{{30,}})",
    "slack-webhook": r"\bhooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{40,80}",
    "square-secret": rf"\bsq0(?:csp|atp)-{_WORD}{{22,43}}",
    "stripe-key": r"\b(?:[rs]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,}",
    "telegram-bot-token": rf"\b\d{{8,10}}:AA{_WORD}{{33}}",
    "twilio-key": r"\bSK[0-9a-f]{32}\b",
    "url-password": (
        r"\b(?:https?|ftp|postgres(?:ql)?|mysql|mariadb|mongodb|mongodb\+srv|rediss?|amqps?)://"
        r"[!#-&(-.0-9;=?A-Z\[\]-~]*:([!#-&(-.0-9;=?A-Z\[\]-~]{3,})@"
    ),
    "vault-token": rf"\bhv[sb]\.{_WORD}{{24,}}",
    "xai-key": rf"\bxai-{_WORD}{{60,}}",
}

_OWN_CHECK: dict[str, Check | None] = {
    "jwt": _check_jwt,
    "private-key": None,
    "putty-private-key": None,
    "url-password": None,
}

RULES = tuple(
    Rule(
        profile_id=PROFILE_ID,
        entry_id=entry_id,
        pattern=pattern,
        check=_OWN_CHECK.get(entry_id, _check_varied),
    )
    for entry_id, pattern in _PATTERNS.items()
)
