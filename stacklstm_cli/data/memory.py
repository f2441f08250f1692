"""Memory that was freed and is given back to the system, as allocators keep it for themselves."""

from __future__ import annotations

import ctypes
import sys

import pyarrow as pa


def give_back() -> None:
    """Give back what Arrow and, on Linux, the C library hold of freed memory; some milliseconds.

    glibc keeps freed arrays of up to 32 MB, so what is held after a large file was read may be several times what is
    used. Where there is no glibc, its part is left out.
    """
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
