"""Sphinx's settings for the site of `make docs`; tools/docs.py lays its pages out."""

from __future__ import annotations

project = "wsgi.host"
author = "toll-app maintainers"
html_title = "wsgi.host"
extensions = ["myst_parser", "sphinx_antsibull_ext"]
root_doc = "index"
# Anchors of headings as forges make them.
myst_heading_anchors = 5
# A block that is shortened with "…" is no JSON, and reads well without colours.
suppress_warnings = ["misc.highlighting_failure"]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
