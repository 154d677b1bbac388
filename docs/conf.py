"""The site, built by `make docs`: pages of this folder, and references that are made of the code itself.

Nothing is fetched, neither when it is built nor when it is read: fonts are the reader's, formulas are MathML.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import make_reference  # noqa: E402  (it lies beside this file)
from sphinx.application import Sphinx  # noqa: E402

from reidkit import __version__  # noqa: E402

project, author = "reidkit", "The reidkit authors"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "mathml",
]
exclude_patterns = ["_build"]
highlight_language = "console"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]
default_role = "code"  # docstrings write names as Markdown does
python_use_unqualified_type_names = True
python_display_short_literal_types = True

html_theme = "furo"
html_title = f"reidkit {version}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
copybutton_exclude = ".linenos, .gp, .go"

make_reference.write(HERE / "reference" / "generated")

CHILDREN = {"losses/README": "losses", "datasets/README": "datasets"}
"""Pages whose folder's other pages stand below them in the menu; on a code host they need no such list."""


def _add_children(app: Sphinx, name: str, source: list[str]) -> None:
    if folder := CHILDREN.get(name):
        told_elsewhere = {"README", "labels", "protocols"}
        pages = sorted(path.stem for path in (HERE / folder).glob("*.md") if path.stem not in told_elsewhere)
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def setup(app: Sphinx) -> None:
    app.connect("source-read", _add_children)
