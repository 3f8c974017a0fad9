from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from openworks.engines.batched.memory import Reserve, own_memory  # noqa: E402 # after the skip

_COUNT = 32 << 20
_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@_LINUX
def test_own_memory_is_given_back_with_the_last_part_of_it() -> None:
    memory = own_memory(_COUNT, torch.uint8)
    memory.fill_(1)
    held = _resident_bytes()
    part = memory[5:6]
    del memory
    assert held - _resident_bytes() < _COUNT // 2
    del part
    assert held - _resident_bytes() > _COUNT // 2


@_LINUX
def test_reserve_takes_no_memory_for_what_is_read_or_trimmed() -> None:
    before = _resident_bytes()
    reserve = Reserve((_COUNT // 1024, 1024), torch.uint8)
    assert int(reserve.data.sum()) == 0
    assert _resident_bytes() - before < _COUNT // 2
    reserve.data.fill_(1)
    assert _resident_bytes() - before > _COUNT // 2
    reserve.trim(1)
    assert _resident_bytes() - before < _COUNT // 2
    assert int(reserve.data[:1].sum()) == 1024
