"""Memory that a process keeps for its next step in place of giving it back to the system."""

from __future__ import annotations

import ctypes

# Of glibc's <malloc.h>; they are the same on every platform that has it.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let this process use memory again that it has freed; returns whether it does from now on.

    A step of training on a CPU frees its activations, arrays of many megabytes, and asks for as many a moment
    later. glibc gives those of more than 32 MB back to the system at once, which then has to find and to
    clear every page of them anew: a quarter of a step of MobileNetV2 on 64 images of 256 x 128. Results do
    not change. The process holds on to the most that it ever needed until it ends, so this is for programs
    that train and end, as ``reid train`` does, and to be called before they train.

    Linux with glibc; elsewhere, where allocators do otherwise, nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; TypeError on Windows
        return False
    # No array of a mapping of its own, and the end of the heap is never given back.
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
