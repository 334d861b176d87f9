"""How Sphinx builds the site: `make docs`. No page asks another host for anything."""

import logging
import sys
from pathlib import Path

import dualprop

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
logging.getLogger("traitlets").setLevel(logging.WARNING)  # a line for every notebook

project = "dualprop"
author = "The dualprop developers"
version = release = dualprop.__version__
copyright = author

extensions = [
    "myst_nb",  # pages in Markdown, notebooks among them
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",  # equations, by what browsers have built in
    "gathered",  # pages that lie elsewhere in the repository
    "interface",  # the public names, from their docstrings
]
source_suffix = {".md": "myst-nb"}
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
suppress_warnings = ["toc.empty_glob", "mystnb.unknown_mime_type"]

myst_enable_extensions = ["dollarmath", "attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_in_temp = True  # what they write is in nobody's way
nb_execution_timeout = 600  # seconds for a cell, on a busy machine
nb_execution_raise_on_error = True
nb_ipywidgets_js = {}  # which would be fetched from elsewhere
nb_merge_streams = True
nb_output_stderr = "remove"  # remarks of other libraries on this machine
nb_render_markdown_format = "gfm"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what arguments are
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes are in a list, not documented twice
default_role = "code"
smartquotes = False  # two strokes begin an option

html_theme = "furo"
html_title = "dualprop"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0067a3", "color-brand-content": "#0067a3"},
    "dark_css_variables": {"color-brand-primary": "#56b4e9", "color-brand-content": "#56b4e9"},
}
