"""What this machine is: Python, platform, processor, memory, and what llama.cpp makes of it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_PROBE = "openworks.engines.llamacpp.probe"
_PROBE_TIMEOUT_S = 60.0
_CPU_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_int8": "AMX",
    "asimddp": "dot product",
    "i8mm": "int8 matrix",
    "sve": "SVE",
}
"""What /proc/cpuinfo calls the instructions that decide how fast models run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    mark: Literal["ok", "off", "bad"]
    """`off`: absent or unused, and serving works without it."""
    reason: str
    remedy: str = ""
    is_fatal: bool = False
    """Whether nothing can be served because of it."""


def examine_machine() -> Iterator[Finding]:
    """Look at everything that settings cannot change."""
    yield _python()
    yield Finding(
        name="platform",
        mark="ok" if sys.platform == "linux" else "off",
        reason=f"{platform.system()} {platform.release()}, {platform.machine()}"
        + ("" if sys.platform == "linux" else "; Linux is the one that is tested"),
    )
    yield _cores()
    yield _instructions()
    yield _llama_cpp()


def memory_limit_bytes() -> int | None:
    """What a container allows; None for no limit, or none that can be read."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(file).strip()
        if text.isdigit():
            return int(text) if int(text) < 1 << 60 else None
    return None


def available_memory_bytes() -> int | None:
    """What could be taken without swapping; None where the system does not say."""
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _python() -> Finding:
    return Finding(
        name="Python",
        mark="ok",
        reason=f"{platform.python_version()} at {sys.executable}",
    )


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    model = _cpu_field("model name") or platform.processor() or platform.machine()
    quota = _cpu_quota()
    if quota is not None and quota < cores:
        return Finding(
            name="processor",
            mark="off",
            reason=f"{model}: {cores} cores, of which the container may use {quota:g}",
            remedy="models start a thread for each core; set catalog.models.<id>.threads to fewer",
        )
    return Finding(
        name="processor", mark="ok", reason=f"{model}, {cores} core{'s' if cores > 1 else ''}"
    )


def _instructions() -> Finding:
    flags = set((_cpu_field("flags") or _cpu_field("Features") or "").split())
    if not flags:
        return Finding(
            name="instructions", mark="off", reason="this system does not list the processor's"
        )
    has = [title for flag, title in _CPU_FEATURES.items() if flag in flags]
    if platform.machine() in {"x86_64", "AMD64"} and "avx2" not in flags:
        return Finding(
            name="instructions",
            mark="off",
            reason="no AVX2: models run several times slower, if llama.cpp starts at all",
            remedy="in a virtual machine, pass the host's processor through",
        )
    return Finding(name="instructions", mark="ok", reason=", ".join(has) or "none that matter")


def _llama_cpp() -> Finding:
    """Import llama.cpp in a process of its own, which an illegal instruction would end."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _no_llama_cpp(f"does not start within {_PROBE_TIMEOUT_S:g} s")
    if done.returncode < 0:
        return _no_llama_cpp(f"ends with signal {-done.returncode} on this processor")
    if done.returncode > 0:
        return _no_llama_cpp((done.stderr.strip().splitlines() or ["fails without a word"])[-1])
    found = json.loads(done.stdout.splitlines()[-1])
    uses = [name for name, value in _pairs(found["system"]) if value == "1"]
    devices = ", ".join(
        f"{device['name']} ({device['description']})" for device in found["devices"]
    )
    return Finding(
        name="llama.cpp",
        mark="ok",
        reason=f"xllamacpp {found['version']}, runs on {devices}; built with {' '.join(uses)}",
    )


def _no_llama_cpp(reason: str) -> Finding:
    return Finding(
        name="llama.cpp",
        mark="bad",
        reason=reason,
        remedy="pip install --force-reinstall xllamacpp",
        is_fatal=True,
    )


def _pairs(system_info: str) -> Iterator[tuple[str, str]]:
    """Read `CPU : AVX2 = 1 | FMA = 1 | `."""
    for part in system_info.partition(":")[2].split("|"):
        name, _, value = part.partition("=")
        if value.strip():
            yield name.strip(), value.strip()


def _cpu_field(name: str) -> str | None:
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _cpu_quota() -> float | None:
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _read(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:
        return ""
