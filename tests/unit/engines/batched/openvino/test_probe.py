from __future__ import annotations

import sys

import pytest

pytest.importorskip("torch")

from openworks.engines.batched.openvino.probe import openvino_fault


def test_openvino_that_is_installed_is_usable() -> None:
    pytest.importorskip("openvino")
    assert openvino_fault() is None


def test_openvino_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    fault = openvino_fault()
    assert fault is not None
    assert "openworks[openvino]" in fault
