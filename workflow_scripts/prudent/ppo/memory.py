"""The memory allocator of a CPU process."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt (malloc.h)."""


def keep_freed_memory() -> None:
    """Tells malloc to keep what is freed instead of handing it back to the system.

    A training step allocates the same large tensors again and again. By default glibc maps each one
    anew, and the system fills it with zeros page by page. With this, the process stays at its peak
    size. Without glibc it does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(M_TOP_PAD, 64 << 20)
