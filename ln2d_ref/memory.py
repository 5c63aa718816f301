"""What a process does with memory that arrays have left."""

from __future__ import annotations

from functools import cache

import numpy as np

__all__ = ["keep_freed_memory"]

_LARGEST = 32_000_000
"""Bytes: a little below glibc's DEFAULT_MMAP_THRESHOLD_MAX on 64-bit systems, 4 MiB times the size of a long."""


@cache
def keep_freed_memory() -> None:
    """Let arrays of up to 32 MB reuse memory of earlier ones; to be called once or more, early.

    glibc asks the system for each block of 128 KiB or more, and gives it back when it is freed; the system clears its pages anew each
    time, which costs more than the arithmetic on them. Freeing one block raises that size to the block's, and the free memory that
    the process keeps to twice that (mallopt(3), M_MMAP_THRESHOLD). Without effect where another allocator is used, or where the
    environment sets MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_.
    """
    np.empty(_LARGEST, np.uint8)  # never written to, and so no memory yet
