"""The code blocks of the documentation: what is run, in which order, and where its output stands.

| block | what the script does with it |
|---|---|
| `console` | runs what follows each `$ `, and writes the output below it |
| `bash` | runs each line; shows no output |
| `python` | runs it, in a tutorial with the names of the blocks above; a `text` block below `<!-- output -->` holds what it prints |
| any with `title="NAME.SUFFIX"` | writes it to this file, for the blocks below |
| any other | nothing |

A comment on the line above a block says more: `<!-- long -->` takes more than a few seconds, so only
`python -m tests.documentation` and `pytest -m long` run it; `<!-- not run: REASON -->` is never run, its commands and options
are checked all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>long|output|not run: [^\n]+) -->\n)?```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<text>.*?)^```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """A fenced code block of a page.

    Args:
        mark: the comment above it: `long`, `output`, `not run: REASON`, or nothing.
        span: where its text stands in the page, from and to.
    """

    page: Path
    language: str
    text: str
    mark: str
    title: str | None
    span: tuple[int, int]

    @property
    def file(self) -> str | None:
        return self.title if self.title and "." in self.title else None

    @property
    def shell(self) -> bool:
        return self.language in ("console", "bash") and self.file is None

    @property
    def python(self) -> bool:
        return self.language == "python" and self.file is None

    @property
    def long(self) -> bool:
        return self.mark == "long"

    @property
    def runs(self) -> bool:
        return (self.shell or self.python) and not self.mark.startswith("not run")

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Each command of a shell block, which may go over several lines, and the output shown below it."""
        if self.language == "bash":
            lines = re.sub(r"\\\n *|(?<=[|&])\n *", " ", self.text).splitlines()
            return [(line, "") for line in lines if line.strip() and not line.startswith("#")]
        found = []
        for part in re.split(r"^\$ ", self.text, flags=re.M)[1:]:
            command = re.match(r"(?:.*(?:\\|\||&&)\n)*.*\n?", part)
            assert command is not None
            found.append((command[0].rstrip("\n"), part[command.end() :]))
        return found

    @property
    def commands(self) -> list[str]:
        return [command for command, _ in self.parts]


def blocks_of(page: Path) -> list[Block]:
    """All code blocks of a page, from top to bottom."""
    text = page.read_text()
    return [
        Block(page, m["language"], m["text"], m["mark"] or "", m["title"], m.span("text"))
        for m in _BLOCK.finditer(text)
    ]


def prose_of(page: Path) -> str:
    """The text of a page without its code blocks."""
    return _BLOCK.sub("", page.read_text())


def output_of(block: Block, blocks: list[Block]) -> Block | None:
    """The block that holds what a Python block prints: the next one, if it is marked so."""
    later = [b for b in blocks if b.span[0] > block.span[0]]
    return later[0] if later and later[0].mark == "output" else None


def with_text(block: Block, text: str) -> Block:
    return replace(block, text=text)


def rewritten(page: Path, pairs: list[tuple[Block, Block]]) -> str:
    """The text of a page with the second block of each pair in the place of the first one.

    Raises:
        RuntimeError: if the page has been changed since its blocks were read.
    """
    text = page.read_text()
    for old, new in sorted(pairs, key=lambda pair: -pair[0].span[0]):
        begin, end = old.span
        if text[begin:end] != old.text:
            raise RuntimeError(f"{page} was changed while its blocks ran")
        text = text[:begin] + new.text + text[end:]
    return text
