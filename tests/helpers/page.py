"""An HTML page as a reader finds it: its text, cells and pictures."""

import base64
import hashlib
import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """The page's text, images, links and tables; fails on tags that do not balance."""

    VOID = ("meta", "img", "br", "input", "link", "hr")

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.source, self.open, self.tags, self.text = source, [], [], ""
        self.cells: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "br":
            self.text += "\n"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" not in self.open and "style" not in self.open:
            self.text += data
            if "td" in self.open or "th" in self.open:
                self.cells[-1] += data

    @property
    def images(self):
        return [attrs["src"] for tag, attrs in self.tags if tag == "img"]

    def assert_closed(self):
        """The styles load nothing, and no script may run but the page's own."""
        assert "url(" not in self.source and "@import" not in self.source
        (policy,) = (attrs["content"] for _, attrs in self.tags if "http-equiv" in attrs)
        script = re.search("<script>(.*)</script>", self.source, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert policy.startswith("default-src 'none';")
        assert f"script-src 'sha256-{digest}'" in policy

    def assert_accessible(self):
        """There is a language and one title; pictures have a text, heads a direction."""
        assert ("html", {"lang": "en"}) in self.tags
        assert sum(tag == "h1" for tag, _ in self.tags) == 1
        assert all("alt" in attrs for tag, attrs in self.tags if tag == "img")
        assert all("scope" in attrs for tag, attrs in self.tags if tag == "th")
