"""The site: Sphinx, MyST and furo. ``make docs`` builds it into build/docs/html, warnings are errors."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The tutorials' shell cells call `fedguard`; the virtual environment need not be activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

import fedguard  # noqa: E402

project = "FedGuard"
author = "The FedGuard authors"
copyright = author
release = version = fedguard.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "_ext.site"]
exclude_patterns = ["_ext", "examples", "images", "**/changes"]
root_doc = "index"

html_theme = "furo"
html_title = "FedGuard"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# Tutorials are notebooks in Markdown; they are run at every build, and one that fails fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
copybutton_exclude = ".linenos, .gp, .go"

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_custom_sections = [("Shapes", "Returns")]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# What is ours must be found; other projects' documentation is not at hand when the site is built.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!fedguard\.).*")]
