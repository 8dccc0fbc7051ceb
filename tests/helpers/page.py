"""An HTML page as a reader finds it: its text, cells and pictures."""

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
