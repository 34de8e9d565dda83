"""The documentation site: `make docs` builds it into docs/_build/html."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import reference_pages  # beside this file

import tlkit

# Notebooks run as a part of the build: what they log and store goes to a folder that is thrown away.
scratch = tempfile.TemporaryDirectory(prefix="tlkit-docs-")
os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch.name}/mlflow.db"
os.environ["TLKIT_CACHE"] = f"{scratch.name}/cache"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # for `!tlkit ...`

project = "tlkit"
author = "the authors of tlkit"
copyright = author
release = version = tlkit.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
default_role = "code"  # `name` in a docstring

html_theme = "furo"
html_title = "tlkit"
html_static_path = ["_static"]
html_css_files = ["tlkit.css"]
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
napoleon_custom_sections = [("Shapes", "params_style")]
napoleon_use_rtype = False

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "force"  # a stored output would be that of older code
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True
nb_output_stderr = "remove"  # progress and what frameworks say of the machine
nb_merge_streams = True


def setup(app: object) -> None:
    """Write the reference pages, and read docstrings as they are written here."""
    reference_pages.write(Path(__file__).parent / "reference")
    app.connect("autodoc-process-docstring", reference_pages.plain_stars, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", reference_pages.skipped)
