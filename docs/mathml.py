"""Formulas as MathML, which browsers draw by themselves: no script, no font, no request."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx

_SIZES = re.compile(r"\\[Bb]igg?[lr]?(?![a-z])")  # of brackets, which MathML chooses by itself


def _formula(latex: str, *, block: bool) -> str:
    return str(latex2mathml.tex2mathml(_SIZES.sub("", latex), as_block=block))


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_formula(node.astext(), block=False))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{_formula(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
