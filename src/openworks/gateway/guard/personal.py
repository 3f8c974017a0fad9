"""The profiles `financial`, `contact` and `national-ids`: numbers with checksums, and addresses.

Forms whose checksum is weak (one digit, no dates) are found only as they are printed, with their
separators: one in ten random numbers of the right length would pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from stdnum import iban
from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cn import ric
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.mx import curp
from stdnum.pl import pesel
from stdnum.se import personnummer
from stdnum.us import ssn

from openworks.gateway.guard.rules import Check, Rule

_SEPARATORS = b" -."
_SHORTEST = 13
"""Of cards; no IBAN is shorter than 15."""

_CARD_BRANDS = re.compile(
    "4[0-9]{12}(?:[0-9]{3}){0,2}"  # Visa: 13, 16, 19
    "|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"  # Mastercard
    "|3[47][0-9]{13}"  # American Express
    "|3(?:0[0-5]|[689][0-9])[0-9]{11,16}"  # Diners Club
    "|6(?:011|4[4-9][0-9]|5[0-9]{2})[0-9]{12,15}"  # Discover
    "|35(?:2[89]|[3-8][0-9])[0-9]{12,15}"  # JCB
    "|62[0-9]{14,17}|81[0-9]{14,17}"  # UnionPay
    "|(?:50|5[6-9]|6[0379])[0-9]{10,17}"  # Maestro
    "|220[0-4][0-9]{12,15}|(?:60|65|81|82|508)[0-9]{13,14}"  # Mir, RuPay
)


def _groups(is_valid: Callable[[str], bool]) -> Check:
    """Check digits in groups; a last group that does not belong to them is left off.

    `4111 1111 1111 1111 12` is a card and then a twelve.
    """

    def check(text: bytes, start: int, end: int) -> int:
        before = text[start - 2 : start] if start > 1 else b""
        if before[:1].isdigit() and before[1:] in (b"-", b"."):  # the middle of a longer number
            return 0
        while end - start >= _SHORTEST:
            if is_valid(text[start:end].translate(None, _SEPARATORS).decode("latin-1")):
                return end
            end = max(text.rfind(separator, start, end) for separator in (b" ", b"-", b"."))
        return 0

    return check


def _is_card(digits: str) -> bool:
    return (
        _CARD_BRANDS.fullmatch(digits) is not None
        and len(set(digits)) > 1
        and _has_luhn(digits.encode("ascii"))
    )


_DOUBLED = bytes.maketrans(b"0123456789", bytes([0, 2, 4, 6, 8, 1, 3, 5, 7, 9]))


def _has_luhn(digits: bytes) -> bool:
    """The checksum of cards; ten times as fast as a library's, as long rows of digits need it."""
    plain = digits[-1::-2]
    return (sum(plain) - 48 * len(plain) + sum(digits[-2::-2].translate(_DOUBLED))) % 10 == 0


def _whole(is_valid: Callable[[str], bool]) -> Check:
    """Check all of a candidate, and that it is not a part of a longer one, such as a UUID."""

    def check(text: bytes, start: int, end: int) -> int:
        if start and text[start - 1 : start] in b"-./+" and text[start - 2 : start - 1].isalnum():
            return 0
        if text[end : end + 1] == b"-":
            return 0
        return end if is_valid(text[start:end].decode("latin-1")) else 0

    return check


def _check_email(text: bytes, start: int, end: int) -> int:
    name = text[start : text.find(b"@", start)]
    if name.startswith(b".") or name.endswith(b".") or b".." in text[start:end]:
        return 0
    return end if text[start - 1 : start] not in b"@/" or not start else 0


def _check_phone(text: bytes, start: int, end: int) -> int:
    """Eight to fifteen digits (E.164), and no sum, version or range: `3+49 30 12` is none."""
    before = text[start - 1 : start] if start else b" "
    if before.isalnum() or before in b"+-._/=":
        return 0
    digits = sum(48 <= byte <= 57 for byte in text[start:end])
    return end if 8 <= digits <= 15 and text[end : end + 1] not in (b"-", b"_", b"%") else 0


_NINO_UNUSED = frozenset({"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"})


def _is_nino(number: str) -> bool:
    return number[:2] not in _NINO_UNUSED


def _is_ssn(number: str) -> bool:
    return ssn.is_valid(number.replace(" ", "-"))


def _rules(profile_id: str, entries: dict[str, tuple[str, Check]]) -> tuple[Rule, ...]:
    return tuple(
        Rule(profile_id=profile_id, entry_id=entry_id, pattern=pattern, check=check)
        for entry_id, (pattern, check) in entries.items()
    )


FINANCIAL = _rules(
    "financial",
    {
        "card": (r"\b[2-68]\d(?:[ -]?\d){10,17}\b", _groups(_is_card)),
        "iban": (
            r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?\b",
            _groups(iban.is_valid),
        ),
    },
)

CONTACT = _rules(
    "contact",
    {
        "email": (
            r"\b[A-Za-z0-9_][A-Za-z0-9._%+'-]{0,63}@(?:[A-Za-z0-9][A-Za-z0-9-]*\.)+"
            r"[A-Za-z]{2,24}\b",
            _check_email,
        ),
        "phone": (
            r"\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,6}\b"
            r"|(?:\(\d{3}\) ?|\b\d{3}[. -])\d{3}[. -]\d{4}\b",
            _check_phone,
        ),
    },
)

NATIONAL_IDS = _rules(
    "national-ids",
    {
        "be-national-number": (
            r"\b\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}\b",
            _whole(nn.is_valid),
        ),
        "br-cpf": (r"\b\d{3}\.\d{3}\.\d{3}-\d{2}\b", _whole(cpf.is_valid)),
        "ca-sin": (r"\b\d{3}[ -]\d{3}[ -]\d{3}\b", _whole(sin.is_valid)),
        "ch-ahv": (r"\b756\.\d{4}\.\d{4}\.\d{2}\b", _whole(ahv.is_valid)),
        "cn-resident-id": (r"\b[1-9]\d{16}[\dX]\b", _whole(ric.is_valid)),
        "de-tax-id": (
            r"\b[1-9]\d(?: ?\d{3}){3}\b",
            _whole(idnr.is_valid),
        ),
        "es-dni": (r"\b\d{8}-?[A-Z]\b", _whole(dni.is_valid)),
        "es-nie": (r"\b[XYZ]-?\d{7}-?[A-Z]\b", _whole(nie.is_valid)),
        "fi-hetu": (r"\b\d{6}[+A-]\d{3}[0-9A-Y]\b", _whole(hetu.is_valid)),
        "fr-nir": (
            r"\b[12] ?\d{2} ?\d{2} ?\d[0-9AB] ?\d{3} ?\d{3} ?\d{2}\b",
            _whole(nir.is_valid),
        ),
        "in-aadhaar": (r"\b[2-9]\d{3}[ -]\d{4}[ -]\d{4}\b", _whole(aadhaar.is_valid)),
        "in-pan": (r"\b[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]\b", _whole(pan.is_valid)),
        "it-codice-fiscale": (
            r"\b[A-Z]{6}[0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z]\b",
            _whole(codicefiscale.is_valid),
        ),
        "kr-rrn": (r"\b\d{6}-[1-8]\d{6}\b", _whole(rrn.is_valid)),
        "mx-curp": (r"\b[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z0-9]\d\b", _whole(curp.is_valid)),
        "pl-pesel": (r"\b\d{11}\b", _whole(pesel.is_valid)),
        "se-personnummer": (r"\b(?:\d{2})?\d{6}[+-]\d{4}\b", _whole(personnummer.is_valid)),
        "uk-nhs": (r"\b\d{3} \d{3} \d{4}\b", _whole(nhs.is_valid)),
        "uk-nino": (
            r"\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b",
            _whole(_is_nino),
        ),
        "us-ssn": (r"\b\d{3}(?:-\d{2}-|  ?\d{2} )\d{4}\b", _whole(_is_ssn)),
    },
)
