"""Formulas as MathML when the site is built, so that no script is needed to show them.

A fence of the language `math` is a displayed formula, inline code that begins with `#!math` one within a line; both are
written in LaTeX.
"""

from __future__ import annotations

from typing import Any

from latex2mathml.converter import convert


def displayed(source: str, language: str, css_class: str, options: Any, md: Any, **rest: Any) -> str:
    """The formula of a `math` fence, a line of its own; several lines of LaTeX are several formulas."""
    lines = [line for line in source.splitlines() if line.strip()]
    return "".join(f'<div class="formula">{convert(line, display="block")}</div>' for line in lines)


def inline(source: str, language: str, css_class: str, md: Any) -> str:
    """The formula of inline code that begins with `#!math`."""
    return convert(source)


def on_config(config: Any) -> Any:
    """Register both with the extensions that parse fences and inline code."""
    fence = {"name": "math", "class": "math", "format": displayed}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    code = {"name": "math", "class": "math", "format": inline}
    config.mdx_configs.setdefault("pymdownx.inlinehilite", {})["custom_inline"] = [code]
    return config
