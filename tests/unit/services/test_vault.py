from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.services.vault import (
    GivenKeys,
    KeyFile,
    SecretKeyError,
    UnreadableSecretError,
    Vault,
    decode_key,
)

PLACE = ("acme", "provider_config", "gw", "openai:main")
OLD, NEW = bytes(range(32)), bytes(range(32, 64))


class Keys:
    """A ring in memory, newest first."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = list(keys)

    def load(self) -> Sequence[bytes]:
        return list(self.keys)

    def add(self, key: bytes) -> None:
        self.keys.insert(0, key)


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


@given(secret=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_secret_comes_back_and_is_not_in_what_is_kept(secret: str) -> None:
    vault = Vault(Keys(OLD))

    sealed = vault.seal(secret, PLACE)

    assert vault.open(sealed, PLACE) == secret
    assert len(secret) < 4 or secret not in sealed
    assert sealed != vault.seal(secret, PLACE)


@pytest.mark.parametrize("index", range(4))
def test_secret_opens_in_no_other_place(index: int) -> None:
    vault = Vault(Keys(OLD))
    other = [*PLACE]
    other[index] += "x"

    with pytest.raises(UnreadableSecretError):
        vault.open(vault.seal("secret", PLACE), other)


@given(position=st.integers(0, 200), bit=st.integers(0, 7))
def test_changed_ciphertext_never_opens_as_something_else(position: int, bit: int) -> None:
    vault = Vault(Keys(OLD))
    sealed = vault.seal("the secret", PLACE)
    broken = bytearray(sealed.encode())
    broken[position % len(broken)] ^= 1 << bit
    changed = broken.decode("latin-1")

    opened = "the secret"  # base64 has bits that mean nothing
    with suppress(UnreadableSecretError):
        opened = vault.open(changed, PLACE)

    assert opened == "the secret"


def test_new_key_seals_and_the_old_one_still_opens() -> None:
    keys = Keys(OLD)
    vault = Vault(keys)
    before = vault.seal("secret", PLACE)

    vault.add(NEW)
    after = vault.seal("secret", PLACE)

    assert vault.open(before, PLACE) == vault.open(after, PLACE) == "secret"
    assert not vault.is_current(before)
    assert vault.is_current(after)


def test_key_that_another_process_added_is_found() -> None:
    keys = Keys(OLD)
    vault, other = Vault(keys), Vault(keys)
    vault.seal("x", PLACE)
    other.add(NEW)

    assert vault.open(other.seal("secret", PLACE), PLACE) == "secret"


def test_lost_key_is_named_and_the_secret_is_not() -> None:
    sealed = Vault(Keys(OLD)).seal("secret", PLACE)

    with pytest.raises(UnreadableSecretError, match=r"the key '[0-9a-f]{8}'"):
        Vault(Keys(NEW)).open(sealed, PLACE)


@pytest.mark.parametrize("written", [text(OLD), OLD.hex(), base64.urlsafe_b64encode(OLD).decode()])
def test_key_is_written_in_base64_or_hex(written: str) -> None:
    assert decode_key(written) == OLD


@pytest.mark.parametrize("written", ["", "x", text(OLD[:16]), text(OLD) + "=", "ä" * 64, "zz" * 32])
def test_wrong_key_is_refused_without_being_repeated(written: str) -> None:
    with pytest.raises(SecretKeyError) as caught:
        GivenKeys(written)

    assert len(written) < 2 or written not in caught.value.message


def test_keys_of_the_settings_are_newest_first_and_the_operators_to_change() -> None:
    keys = GivenKeys(f"{text(NEW)}, {OLD.hex()}")

    assert keys.load() == [NEW, OLD]
    with pytest.raises(SecretKeyError, match=r"gateway\.secret_key"):
        keys.add(bytes(32))


def test_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret.key"

    first, second = KeyFile(path).load(), KeyFile(path).load()

    assert first == second
    assert len(first[0]) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_added_key_comes_first_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    file = KeyFile(path)
    (old,) = file.load()

    file.add(NEW)
    file.add(NEW)

    assert file.load() == [NEW, old]
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_broken_key_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_text("\n")

    with pytest.raises(SecretKeyError, match=r"secret\.key"):
        KeyFile(path).load()
