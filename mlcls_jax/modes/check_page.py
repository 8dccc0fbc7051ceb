"""The report of a check as one HTML file that loads nothing: pictures, style and script inside."""

import base64
import hashlib
import html
import io
from collections import Counter
from pathlib import Path

import numpy as np

from mlcls_jax.data.findings import CheckReport, Finding, Group
from mlcls_jax.errors import DataError, DatasetFileNotFoundError
from mlcls_jax.files import write_text
from mlcls_jax.modes.check_pictures import MAX_SAMPLES, read_listed, sample_entries

MAX_ROWS = 50  # findings of one kind on the page
MAX_THUMBNAILS = 200  # of faulty images on the page
THUMBNAIL_SIDE, SAMPLE_SIDE = 160, 360  # pixels

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
h3 { display: inline; font-size: 1.05rem }
.verdict { padding: .75rem 1rem; border-left: .4rem solid; background: var(--card) }
.verdict b { font-size: 1.3rem } .verdict p { margin: .25rem 0 0; color: var(--text) }
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
td.place { width: 30%; font-family: ui-monospace, monospace; font-size: .9rem }
td.message { white-space: pre-line } td.picture { width: 7.5rem }
td.picture img { max-width: 100%; max-height: 6rem; display: block }
.nothing { padding: .25rem .4rem; border: 1px dashed var(--line); font-size: .8rem;
  color: var(--faint); display: block; text-align: center }
details { margin: .75rem 0; padding: .5rem .9rem; border: 1px solid var(--line) }
summary { cursor: pointer }
.chart { overflow-x: auto; background: #fff; border: 1px solid var(--line) }
.chart img { display: block; max-width: max(100%, 56rem); margin: 0 auto }
.samples { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr));
  margin: 0; padding: 0; list-style: none }
.samples img { width: 100%; height: 10rem; object-fit: contain; background: var(--card) }
.samples span { display: inline-block; margin: .1rem .2rem .1rem 0; padding: 0 .45rem;
  border-radius: .7rem; background: var(--card); font-size: .9rem }
button, input { font: inherit; color: inherit }
input { padding: .2rem .5rem; background: var(--card); border: 1px solid var(--line) }
button { padding: 0; border: 0; background: none; font-weight: bold; cursor: pointer }
button::after { content: " \\2195"; color: var(--faint) }
[aria-sort=ascending] button::after { content: " \\2191" }
[aria-sort=descending] button::after { content: " \\2193" }
@media (max-width: 40rem) { .findings tr { display: block; border-bottom: 1px solid var(--line) }
  .findings td { display: block; width: auto; border: 0; padding: .15rem .6rem }
  .findings thead { display: none }
  td.picture img { max-width: 10rem } .nothing { display: inline-block } }
"""

# Sorts the table of classes by the column that is clicked, and shows the names that are typed.
_SCRIPT = """
const table = document.querySelector("#classes"), heads = [...table.tHead.rows[0].cells];
const rows = [...table.tBodies[0].rows], NAME = 1;
const text = (row, i) => row.cells[i].textContent;
const number = (row, i) => Number(text(row, i).replaceAll(",", ""));
heads.forEach((head, i) => head.firstElementChild.addEventListener("click", () => {
  const before = head.getAttribute("aria-sort");
  const rising = before ? before === "descending" : i <= NAME;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  rows.sort((a, b) => (rising ? 1 : -1) *
    (i === NAME ? text(a, i).localeCompare(text(b, i)) : number(a, i) - number(b, i)));
  table.tBodies[0].append(...rows);
}));
document.querySelector("#filter").addEventListener("input", event => {
  const typed = event.target.value.toLowerCase();
  for (const row of rows) row.hidden = !text(row, NAME).toLowerCase().includes(typed);
});
"""


def write_page(
    report: CheckReport, path: Path, *, histogram: Path | None, cooccurrence: Path | None
) -> None:
    """Writes the report as one HTML page, which needs no other file: pictures are embedded.

    Of every kind the first `MAX_ROWS` findings are shown; `findings.txt`, which the page names,
    is expected beside it. Images that cannot be decoded, or lie outside the data set, have a
    placeholder. All text is escaped, and the page's policy forbids every other script.

    Args:
      report: what the check found.
      path: the page.
      histogram: PNG of `draw_histogram`; None leaves it out.
      cooccurrence: PNG of `draw_cooccurrence`; None leaves it out.
    """
    name = report.root.resolve().name
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
        f" script-src 'sha256-{_base64(hashlib.sha256(_SCRIPT.encode()).digest())}'"
    )
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Check of {_text(name)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Check of the data set <bdi>{_text(name)}</bdi></h1>
{_verdict(report)}
{_summary(report)}
{_findings(report)}
{_chart("Images per class", histogram, "Bar chart of the images that each label has in each list")}
{_chart("Labels that occur together", cooccurrence, "Matrix of how often labels occur together")}
{_samples(report)}
{_classes(report)}
<script>{_SCRIPT}</script>
</body>
</html>
"""
    write_text(path, page)


def _verdict(report: CheckReport) -> str:
    totals: Counter[str] = Counter()
    for group in report.groups:
        totals[group.kind.severity] += group.count
    counts = ", ".join(_count(totals[word], word) for word in ("error", "warning", "note"))
    style, title, advice = (
        ("passed", "✓ Passed", "The data set can be trained on.")
        if report.passed
        else ("error", "✗ Failed", "Mend the errors below, then check again.")
    )
    return f'<div class="verdict {style}"><b>{title}</b><p>{counts}. {advice}</p></div>'


def _summary(report: CheckReport) -> str:
    how = "decoded" if report.pixels else "their headers read"
    heads = ("list", "images", "labels an image", "without any label", "values not annotated")
    rows = [
        (
            _text(split.list_file),
            f"{split.images:,}",
            f"{split.positives.sum() / max(split.images, 1):.2f}",
            f"{split.unlabelled:,}",
            f"{split.unknown.sum():,}",
        )
        for split in report.splits.values()
    ]
    head = "".join(f'<th scope="col"{_number(i)}>{text}</th>' for i, text in enumerate(heads))
    body = "\n".join(
        "<tr>" + "".join(f"<td{_number(i)}>{text}</td>" for i, text in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"""<h2>Summary</h2>
<p><bdi>{_text(report.root)}</bdi>: {_count(len(report.labels), "label")} in
<bdi>{_text(report.label_file)}</bdi>; {_count(report.images_checked, "different image")} opened,
{how}.</p>
<div class="scroll"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>"""


def _findings(report: CheckReport) -> str:
    if not report.groups:
        return "<h2>Findings</h2>\n<p>Nothing is wrong.</p>"
    illustrated = sum(any(f.image for f in group.findings) for group in report.groups)
    share = MAX_THUMBNAILS // max(illustrated, 1)  # a fair one, though some may not need theirs
    contents = "\n".join(
        f'<li><a href="#group-{number}">{_title(group)}</a></li>'
        for number, group in enumerate(report.groups)
    )
    groups = "\n".join(
        _group(group, f"group-{number}", report.root, share)
        for number, group in enumerate(report.groups)
    )
    return f"""<h2>Findings</h2>
<p>All of them, one a line, are in <a href="findings.txt">findings.txt</a> beside this page.</p>
<ul>
{contents}
</ul>
{groups}"""


def _title(group: Group) -> str:
    severity = group.kind.severity
    return (
        f'<span class="{severity}">{severity}:</span> {_text(group.kind.title)}'
        f' <span class="faint">({group.count:,})</span>'
    )


def _group(group: Group, anchor: str, root: Path, thumbnails: int) -> str:
    shown = group.findings[:MAX_ROWS]
    pictures = [
        _picture(root, finding.image, THUMBNAIL_SIDE, alt=finding.image)
        if finding.image and number < thumbnails
        else ""
        for number, finding in enumerate(shown)
    ]
    illustrated = any(pictures)
    rows = "\n".join(
        _finding(finding, picture if illustrated else None)
        for finding, picture in zip(shown, pictures, strict=True)
    )
    head = '<th scope="col">picture</th>' if illustrated else ""
    cut = (
        f'\n<p class="faint">The first {len(shown)} of {group.count:,} are shown; all are in'
        " findings.txt.</p>"
        if group.count > len(shown)
        else ""
    )
    return f"""<details id="{anchor}"{"" if group.kind.severity == "note" else " open"}>
<summary><h3>{_title(group)}</h3></summary>
<p>{_text(group.kind.remedy)}</p>
<table class="findings">
<thead><tr>{head}<th scope="col">place</th><th scope="col">what is there</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>{cut}
</details>"""


def _finding(finding: Finding, picture: str | None) -> str:
    """A row; None: its table has no column for pictures."""
    cell = "" if picture is None else f'<td class="picture">{picture}</td>'
    place = f'<td class="place"><bdi>{_text(finding.place)}</bdi></td>'
    return f'<tr>{cell}{place}<td class="message"><bdi>{_text(finding.message)}</bdi></td></tr>'


def _picture(root: Path, image: str, side: int, *, alt: str) -> str:
    """The image, at most `side` pixels wide and high, or why it cannot be shown.

    Nothing for a file that is not there: the finding says so itself.
    """
    try:
        picture = read_listed(root, image, side)
    except DatasetFileNotFoundError:
        return ""
    except DataError as error:
        return f'<span class="nothing">{_text(error.message)}</span>'
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    source = f"data:image/jpeg;base64,{_base64(buffer.getvalue())}"
    return f'<img src="{source}" alt="{_text(alt)}">'


def _chart(title: str, path: Path | None, description: str) -> str:
    if path is None:
        return ""
    source = f"data:image/png;base64,{_base64(path.read_bytes())}"
    return f"""<h2>{title}</h2>
<div class="chart" tabindex="0" role="region" aria-label="{title}">
<img src="{source}" alt="{description}; the numbers stand in the table of labels below">
</div>"""


def _samples(report: CheckReport) -> str:
    parts = []
    for split in report.splits.values():
        items = [_sample(report, path, target) for path, target in split.samples[:MAX_SAMPLES]]
        if items:
            listed = "\n".join(items)
            title = f"Samples of {_text(split.list_file)}"
            parts.append(f'<h2>{title}</h2>\n<ul class="samples">\n{listed}\n</ul>')
    return "\n".join(parts)


def _sample(report: CheckReport, path: str, target: np.ndarray) -> str:
    picture = _picture(report.root, path, SAMPLE_SIDE, alt="")  # the text below says it all
    labels = " ".join(
        f"<span><bdi>{_text(entry)}</bdi></span>" for entry in sample_entries(report.labels, target)
    )
    return f'<li>{picture}<br><bdi class="faint">{_text(path)}</bdi><br>{labels}</li>'


def _classes(report: CheckReport) -> str:
    columns = [(split.name, split.positives) for split in report.splits.values()]
    for split in report.splits.values():
        if split.unknown.any():
            columns.append((f"{split.name}, not annotated", split.unknown))
    heads = ["index", "name", *(_text(name) for name, _ in columns)]
    head = "".join(
        f'<th scope="col"{_number(i != 1)}><button>{text}</button></th>'
        for i, text in enumerate(heads)
    )
    body = "\n".join(
        f'<tr><td class="number">{k}</td><th scope="row"><bdi>{_text(label)}</bdi></th>'
        + "".join(_class_count(values[k], name in report.splits) for name, values in columns)
        + "</tr>"
        for k, label in enumerate(report.labels)
    )
    return f"""<h2>All labels</h2>
<p><label>Show names with <input id="filter" type="search"></label></p>
<div class="scroll" tabindex="0" role="region" aria-label="All labels"><table id="classes">
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>"""


def _class_count(count: int, is_fault: bool) -> str:
    missing = " error" if is_fault and not count else ""
    return f'<td class="number{missing}">{count:,}</td>'


def _number(is_number: object) -> str:
    return ' class="number"' if is_number else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _text(value: object) -> str:
    """As HTML, in attributes too; what UTF-8 or HTML cannot hold becomes a replacement mark."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return html.escape("".join(c if c >= " " or c in "\t\n" else "\ufffd" for c in text))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
