"""The description of the wheel: README.md without what works in the repository alone. Hatchling reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


def standalone(text: str) -> str:
    """Markdown without comments, pictures by path and titles of code blocks; links by path keep their words alone."""
    text = re.sub(r"^<!--.*?-->\n", "", text, flags=re.M | re.S)
    text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n?", "", text, flags=re.M)
    text = re.sub(r'^(```\w+) title="[^"]*"$', r"\1", text, flags=re.M)
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)


class Description(MetadataHookInterface):
    """Sets the readme of the project's metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text()
        metadata["readme"] = {"content-type": "text/markdown", "text": standalone(text)}
