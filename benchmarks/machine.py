"""What a benchmark ran on, for the head of its table."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from pathlib import Path


def describe() -> str:
    """One line: date, processor, cores, memory, Python."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    today = datetime.now().astimezone().date()
    return (
        f"{today}, {_processor()}, {len(os.sched_getaffinity(0))} cores, "
        f"{memory_gib:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def peak_memory_mib(pids: list[int]) -> float:
    """The sum of the processes' greatest resident sets."""
    total_kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                total_kib += int(line.split()[1])
    return total_kib / 1024


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]
