"""HTML pages, charts and pictures of what a mode found."""
