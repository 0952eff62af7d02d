"""Settings of the C library's heap, where that is glibc. They hold for the whole process.

They must be made from inside: the environment variables with the same effects are read before
a process begins.
"""

from __future__ import annotations

import ctypes
import platform

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def keep_heap() -> bool:
    """Keep freed memory for the next allocation, for work that asks for the same again and again.

    Every step of a training run on a CPU frees what the next step asks for. By default glibc
    gives large buffers back to the system in between, which clears them page by page when they
    come back. ``M_MMAP_THRESHOLD`` would not do, because glibc takes no more than 32 MiB for it,
    and activations are larger.

    Returns:
        Whether anything was changed; False on other systems and C libraries.
    """
    return _set(_M_MMAP_MAX, 0) and _set(_M_TRIM_THRESHOLD, -1)


def share_heap() -> bool:
    """Let all threads that are yet to begin take memory from one heap.

    glibc gives each thread a heap of its own, so what one of them has freed is of no use to the
    others: separating stereo with two threads then takes 120 MiB more, and is no faster.

    Returns:
        Whether anything was changed; False on other systems and C libraries.
    """
    return _set(_M_ARENA_MAX, 1)


def _set(option: int, value: int) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(option, value))
