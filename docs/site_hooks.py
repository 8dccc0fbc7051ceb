"""Show notebooks and the Markdown files outside docs/ on the site, and lead links there.

On the disk and on a code host the links stay what they are: paths from one file to another.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {  # file → its page on the site
    "launch/README.md": "launch.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "README.md": "index.md",
}
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")


def on_files(files, config):
    for path, page in PAGES.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_with_links(text, path)))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        page = f"notebooks/{notebook.stem}.md"
        files.append(File.generated(config, page, content=_as_page(notebook)))
    return files


def _as_page(notebook: Path) -> str:
    """Return the cells as Markdown, below the title a link to the notebook, which lies beside."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    parts.insert(1, f"[The notebook itself]({notebook.name})")
    return "\n\n".join(parts)


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri in PAGES.values():
        return markdown
    return _with_links(markdown, f"docs/{page.file.src_uri}")


def _with_links(text: str, path: str) -> str:
    """Replace links, which are relative to `path` in the repository, by those of the site."""
    here = PAGES.get(path, path.removeprefix("docs/"))

    def lead(match: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        if target == "launch":
            target = "launch/README.md"
        page = PAGES.get(target, target.removeprefix("docs/"))
        return posixpath.relpath(page, posixpath.dirname(here) or ".") + (match[2] or "")

    return LINK.sub(lead, text)
