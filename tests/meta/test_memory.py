"""Memory that arrays leave is used again, and not asked of the system each time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PAGES_ASKED_FOR = """
import os, resource
import numpy as np
from ln2d_ref.memory import keep_freed_memory

def faults(count=20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        a, b = np.ones(100_000), np.ones(100_000)  # 2 · 782 KiB, above glibc's 128 KiB
        del a, b
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(2)
without = faults()
keep_freed_memory()
faults(2)
print(without, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="concerns glibc's malloc")
def test_freed_memory_is_kept() -> None:
    """Arrays of 800 kB reuse pages, in a process where they did not before."""
    done = subprocess.run([sys.executable, "-c", PAGES_ASKED_FOR], capture_output=True, text=True, check=True)
    without, kept = map(int, done.stdout.split())
    if without < 1000:
        pytest.skip("this process kept its memory before it was asked to")
    assert kept < 100, (without, kept)
