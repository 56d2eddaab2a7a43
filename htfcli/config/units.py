"""Times and sizes as people say them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Two units at most: `0.04 s`, `5.3 s`, `2 min 13 s`, `3 h 20 min`, `4 d 2 h`."""
    if isinstance(seconds, int) and seconds < 60:
        return f"{seconds} s"
    if seconds < 59.95:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    parts, large, small = round(seconds), "min", "s"
    if seconds >= 86400:
        parts, large, small = round(seconds / 3600), "d", "h"
    elif seconds >= 3600:
        parts, large, small = round(seconds / 60), "h", "min"
    count, rest = divmod(parts, 24 if large == "d" else 60)
    return f"{count} {large}" + (f" {rest} {small}" if rest else "")


def size(count: int) -> str:
    """Bytes by powers of 1024, three digits: `512 bytes`, `1.46 MiB`, `162 MiB`."""
    if count < 1024:
        return f"{count} bytes"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        amount /= 1024
        if amount < 999.5 or unit == "TiB":
            break
    return f"{amount:.3g} {unit}"
