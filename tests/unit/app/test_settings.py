from __future__ import annotations

from pathlib import Path

import pytest

from openworks.app.settings import SettingsError, load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENWORKS_ACCESS_TOKEN", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def test_flag_wins_over_environment_over_file_over_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings().server.port == 8080
    Path("openworks.toml").write_text("[server]\nport = 1\nhost = '127.0.0.2'\n")
    assert load_settings().server.port == 1
    monkeypatch.setenv("OPENWORKS_SERVER__PORT", "2")
    assert load_settings().server.port == 2
    settings = load_settings(flags={"server.port": 3, "server.host": None})
    assert settings.server.port == 3
    assert settings.server.host == "127.0.0.2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1", "Unknown setting 'server.prot'. Did you mean 'port'?"),
        (
            "[server]\nport = 'x'",
            "Setting 'server.port' cannot be 'x': input should be a valid int",
        ),
        ("server = 3", "Setting 'server' is a section, got 3"),
        ("[catalog.models.a]\nparalel = 2", "Unknown setting 'catalog.models.a.paralel'"),
        ("[log]\nlevel = 'loud'", "Setting 'log.level' cannot be 'loud'"),
        ("[x", "is not valid TOML"),
    ],
)
def test_mistake_in_the_file_is_named(text: str, message: str) -> None:
    Path("openworks.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert message in caught.value.message


def test_mistake_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENWORKS_SERVER__PORTT", "2")
    with pytest.raises(SettingsError, match=r"'server\.portt'"):
        load_settings()


def test_lists_and_tables_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENWORKS_MODELS", "a/b, c.gguf")
    monkeypatch.setenv("OPENWORKS_CATALOG__ALIASES", '{"gpt-4o": "a/b"}')
    settings = load_settings()
    assert settings.models == ("a/b", "c.gguf")
    assert settings.catalog.aliases == {"gpt-4o": "a/b"}


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENWORKS_ACCESS_TOKEN", "s3cret-a")
    monkeypatch.setenv("HF_TOKEN", "s3cret-b")
    monkeypatch.setenv("OPENWORKS_DATABASE__URL", "postgresql://u:s3cret-c@h/d")
    settings = load_settings()
    assert settings.access.token == "s3cret-a"
    assert settings.hub.token == "s3cret-b"
    assert "s3cret" not in repr(settings)


def test_named_file_must_exist() -> None:
    with pytest.raises(SettingsError, match=r"Cannot read the settings file nowhere\.toml"):
        load_settings(file=Path("nowhere.toml"))
