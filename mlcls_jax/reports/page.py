"""What all reports share: HTML pages of one file that load nothing, and tables to sort and search.

A page's policy forbids every script but its own, and every request.
"""

import base64
import hashlib
import html
import io

from PIL import Image

_STYLE = """
:root { color-scheme: light dark; --text: #202124; --faint: #5f6368; --back: #fff; --card: #f4f6f8;
  --line: #d6dade; --error: #b3001b; --warning: #8a5300; --note: #0b5cad; --passed: #0b6b34 }
@media (prefers-color-scheme: dark) { :root { --text: #e8eaed; --faint: #a5abb3; --back: #17191c;
  --card: #22262b; --line: #41474e; --error: #ff8a93; --warning: #ffbf66; --note: #8ec2ff;
  --passed: #6fd699 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--text);
  background: var(--back); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { margin: 0 0 .5rem; font-size: 1.6rem } h2 { margin: 2.5rem 0 .75rem; font-size: 1.3rem }
.error { color: var(--error) } .warning { color: var(--warning) } .note { color: var(--note) }
.passed { color: var(--passed) } .faint { color: var(--faint) }
.scroll { overflow: auto; max-height: 40rem; border: 1px solid var(--line);
  overflow-wrap: normal }
tbody th { min-width: 9rem; font-weight: normal; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top }
thead th { position: sticky; top: 0; background: var(--card) }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.nothing { padding: .25rem .4rem; border: 1px dashed var(--line); font-size: .8rem;
  color: var(--faint); display: block; text-align: center }
.samples { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr));
  margin: 0; padding: 0; list-style: none }
.samples img { width: 100%; height: 10rem; object-fit: contain; background: var(--card) }
button, input { font: inherit; color: inherit }
input { padding: .2rem .5rem; background: var(--card); border: 1px solid var(--line) }
button { padding: 0; border: 0; background: none; font-weight: bold; cursor: pointer }
button::after { content: " \\2195"; color: var(--faint) }
[aria-sort=ascending] button::after { content: " \\2191" }
[aria-sort=descending] button::after { content: " \\2193" }
"""

# Sorts the table of labels by the column that is clicked, and shows the names that are typed.
_SCRIPT = """
const table = document.querySelector("#classes"), heads = [...table.tHead.rows[0].cells];
const rows = [...table.tBodies[0].rows], NAME = 1;
const text = (row, i) => row.cells[i].textContent;
const number = (row, i) => Number(text(row, i).replaceAll(",", ""));
const compare = (a, b) => isNaN(a) || isNaN(b) ? 0 : a - b;
heads.forEach((head, i) => head.firstElementChild.addEventListener("click", () => {
  const before = head.getAttribute("aria-sort");
  const rising = before ? before === "descending" : i <= NAME;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const key = row => i === NAME ? text(row, i) : number(row, i);
  const keys = new Map(rows.map(row => [row, key(row)]));
  rows.sort((a, b) => i === NAME
    ? (rising ? 1 : -1) * keys.get(a).localeCompare(keys.get(b))
    : isNaN(keys.get(a)) - isNaN(keys.get(b))
      || (rising ? 1 : -1) * compare(keys.get(a), keys.get(b)));
  table.tBodies[0].append(...rows);
}));
document.querySelector("#filter").addEventListener("input", event => {
  const typed = event.target.value.toLowerCase();
  for (const row of rows) row.hidden = !text(row, NAME).toLowerCase().includes(typed);
});
"""


def document(title: str, body: str, *, style: str) -> str:
    """A page with this HTML, which holds a `table_of_labels`, and `style` after that of all pages.

    `title` is text, and is escaped here.
    """
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
        f" script-src 'sha256-{encode(hashlib.sha256(_SCRIPT.encode()).digest())}'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
{body}
<script>{_SCRIPT}</script>
</body>
</html>
"""


def table_of_labels(heads: list[str], rows: list[str]) -> str:
    """The table that can be sorted and searched.

    Args:
      heads: of the columns, as HTML; the second is that of the names.
      rows: whole `<tr>` elements.
    """
    head = "".join(
        f'<th scope="col"{number_class(i != 1)}><button>{text}</button></th>'
        for i, text in enumerate(heads)
    )
    body = "\n".join(rows)
    return f"""<h2 id="labels">All labels</h2>
<p><label>Show names with <input id="filter" type="search"></label></p>
<div class="scroll" tabindex="0" role="region" aria-label="All labels"><table id="classes">
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>"""


def jpeg(picture: Image.Image, *, alt: str) -> str:
    """An `<img>` that holds the picture."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    source = f"data:image/jpeg;base64,{encode(buffer.getvalue())}"
    return f'<img src="{source}" alt="{escape(alt)}">'


def number_class(is_number: object) -> str:
    """The attribute of a cell with a number."""
    return ' class="number"' if is_number else ""


def count(number: int, noun: str) -> str:
    """1 image, 2 images."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def escape(value: object) -> str:
    """As HTML, in attributes too; what UTF-8 or HTML cannot hold becomes a replacement mark."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return html.escape("".join(c if c >= " " or c in "\t\n" else "\ufffd" for c in text))


def encode(data: bytes) -> str:
    """As base64."""
    return base64.b64encode(data).decode("ascii")
