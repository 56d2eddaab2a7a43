"""The type of the records that commands write."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]
"""One line of output: keys to numbers, text and lists of them, as they are written to JSON."""
