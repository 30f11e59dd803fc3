"""How the documentation is built. Every example in it is executed, by `sphinx-build -b doctest` and while the pages are made."""

import doctest
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE / "examples")]

import torch  # noqa: E402

import genmatch  # noqa: E402

torch.set_num_threads(1)  # the examples are small: more threads only wait for each other

project = "genmatch"
author = "the genmatch developers"
release = version = genmatch.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "myst_parser",
    "docstrings",
    "executed",
    "gallery",
    "references",
]
exclude_patterns = ["_build", "_ext", "conf.py", "examples", "gallery/make.py", "gallery/picture.py"]

# `make docs` is nitpicky: a reference that leads nowhere fails the build. These names belong to others, whose documentation is not at
# hand where this one is built, which is offline.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|collections\.abc|pathlib|abc|types|numpy|click|matplotlib|importlib|fastapi|annotated_types)\..*"),
    ("py:class", r"genmatch\.(registry\.T|fetching\._Item|options\._Command)"),  # type variables
    ("py:class", r"genmatch\.(training\.objectives\._Bound|serve\.app\._Request)"),  # base classes that nobody else needs
    ("py:class", r"list\[tuple\[int"),  # an annotation that Sphinx cuts at its comma, where a default is no literal
]

myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 110
toc_object_entries_show_parents = "hide"
napoleon_use_rtype = False
default_role = "code"

doctest_global_setup = "import torch\nimport genmatch as gm"
doctest_default_flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
doctest_test_doctest_blocks = ""
highlight_language = "none"  # blocks without a language are formulas, which Python would colour at random
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = False

html_theme = "furo"
html_title = f"genmatch {release}"
html_static_path = ["_static"]
html_css_files = ["genmatch.css"]
html_show_sphinx = False
html_show_copyright = False
