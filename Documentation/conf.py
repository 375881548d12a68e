# SPDX-License-Identifier: Apache-2.0
# Sphinx's settings for the pages of this folder: `make docs`.
project = "millrace"
html_theme = "alabaster"
html_theme_options = {"page_width": "1120px", "sidebar_width": "240px"}
html_show_sphinx = False
html_show_copyright = False
exclude_patterns = ["figures"]
