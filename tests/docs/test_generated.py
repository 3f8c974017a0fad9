from __future__ import annotations

import pytest

from tools.generate_docs import PARTS, ROOT, regenerated


@pytest.mark.parametrize("file", sorted(PARTS))
def test_generated_part_is_up_to_date(file: str) -> None:
    assert regenerated(file) == (ROOT / file).read_text(encoding="utf-8"), "run: make docs"


def test_every_setting_says_what_it_means() -> None:
    from openworks.app.settings import Settings
    from tools.generate_docs import _settings

    silent = [path for path, _, meaning in _settings(Settings, "") if not meaning]
    assert not silent
