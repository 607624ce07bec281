"""Settings of Sphinx. `python docs/make_site.py` lays out the pages that it reads, and runs it."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

import reference_pages

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "det"
version = release = version_of("det-core")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["files"]

smartquotes = False  # which would make one dash of the two of an option

html_theme = "furo"
html_title = f"det {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

myst_heading_anchors = 4
# A class that det_core exports is found there and in its module: any of the two may be linked.
suppress_warnings = ["ref.python"]

# Docstrings are written with single backticks for code. Signatures keep names as they are in the source.
default_role = "literal"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
maximum_signature_line_length = 100


def setup(app: "Sphinx") -> None:
    app.connect("autodoc-process-docstring", reference_pages.mark_code, priority=100)
    app.connect("autodoc-process-docstring", reference_pages.add_settings)
    app.connect("autodoc-process-signature", reference_pages.hide_signature)
