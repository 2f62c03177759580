"""The site: the same pages as in the repository, with a search and a table of contents. `make docs` builds it."""

project = "residentkv"
author = "the residentkv authors"
extensions = ["myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
root_doc = "docs/site/index"
include_patterns = ["docs/**", "README.md", "ARCHITECTURE.md", "BENCHMARKS.md", "CHANGELOG.md"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "residentkv"
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = "$ "
