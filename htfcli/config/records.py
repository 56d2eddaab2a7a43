"""Records: plain data that commands write, one JSON object each."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]
