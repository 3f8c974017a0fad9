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
        ("[server]\nport = 65536", "'server.port' cannot be 65536: input should be less than or"),
        ("[server]\nport = -1", "'server.port' cannot be -1: input should be greater than or"),
        ("[server]\nmax_requests = 0", "'server.max_requests' cannot be 0: input should be"),
        ("[server]\nheader_timeout_s = 0", "'server.header_timeout_s' cannot be 0: input should"),
        ("[server]\nshutdown_grace_s = -1", "'server.shutdown_grace_s' cannot be -1: input should"),
        ("[server.body]\nmax_bytes = 0", "'server.body.max_bytes' cannot be 0: input should be"),
        ("[server.body]\ntimeout_s = inf", "'server.body.timeout_s' cannot be inf: input should"),
        ("[catalog]\nparallel = 0", "'catalog.parallel' cannot be 0: input should be greater"),
        ("[catalog]\ncontext_tokens = -1", "'catalog.context_tokens' cannot be -1: input should"),
        (
            "[catalog.models.a]\nthreads = 0",
            "'catalog.models.a.threads' cannot be 0: input should be greater than or equal to 1.",
        ),
        ("[engines]\nmax_queue = -9", "'engines.max_queue' cannot be -9: input should be greater"),
        ("[engines]\nmemory_budget_gib = -1", "'engines.memory_budget_gib' cannot be -1: input"),
        ("[engines.restart]\nbackoff_s = -1", "'engines.restart.backoff_s' cannot be -1: input"),
        ("[engines.restart]\nload_wait_s = nan", "'engines.restart.load_wait_s' cannot be nan"),
        ("[engines.restart]\ncancel_timeout_s = 0", "'engines.restart.cancel_timeout_s' cannot be"),
        ("[engines.restart]\nstall_timeout_s = 0", "'engines.restart.stall_timeout_s' cannot be 0"),
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
    monkeypatch.setenv("OPENWORKS_BLOBS__S3__SECRET_ACCESS_KEY", "s3cret-d")
    settings = load_settings()
    assert settings.access.token == "s3cret-a"
    assert settings.hub.token == "s3cret-b"
    assert settings.blobs.s3.secret_access_key == "s3cret-d"
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("access = 's3cret'", "'access'"),
        ("hub = ['s3cret']", "'hub'"),
        ("access.token = ['s3cret']", "'access.token'"),
        ("hub.token = {a = 's3cret'}", "'hub.token'"),
        ("database.url = ['postgresql://u:s3cret@h/d']", "'database.url'"),
        ("blobs.s3 = 's3cret'", "'blobs.s3'"),
        ("blobs.s3.secret_access_key = ['s3cret']", "'blobs.s3.secret_access_key'"),
    ],
)
def test_mistake_in_a_secret_is_named_without_its_value(text: str, key: str) -> None:
    Path("openworks.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert key in caught.value.message
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("text", ["", " "])
@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("OPENWORKS_ACCESS_TOKEN", "access.token"),
        ("OPENWORKS_HUB__TOKEN", "hub.token"),
        ("OPENWORKS_DATABASE__URL", "database.url"),
        ("OPENWORKS_BLOBS__S3__SECRET_ACCESS_KEY", "blobs.s3.secret_access_key"),
    ],
)
def test_empty_secret_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, key: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError, match=f"'{key}' cannot be empty: give it a value, or leave"):
        load_settings()


def test_named_file_must_exist() -> None:
    with pytest.raises(SettingsError, match=r"Cannot read the settings file nowhere\.toml"):
        load_settings(file=Path("nowhere.toml"))
