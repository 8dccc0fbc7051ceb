"""The report of a check as one HTML file that loads nothing: pictures, style and script inside."""

from collections import Counter
from pathlib import Path

import numpy as np

from mlcls_jax.data.findings import CheckReport, Finding, Group
from mlcls_jax.errors import DataError, DatasetFileNotFoundError
from mlcls_jax.files import write_text
from mlcls_jax.reports.check_pictures import MAX_SAMPLES, read_listed, sample_entries
from mlcls_jax.reports.page import count as _count
from mlcls_jax.reports.page import document, encode, jpeg, table_of_labels
from mlcls_jax.reports.page import escape as _text
from mlcls_jax.reports.page import number_class as _number

MAX_ROWS = 50  # findings of one kind on the page
MAX_THUMBNAILS = 200  # of faulty images on the page
THUMBNAIL_SIDE, SAMPLE_SIDE = 160, 360  # pixels

_STYLE = """
h3 { display: inline; font-size: 1.05rem }
.verdict { padding: .75rem 1rem; border-left: .4rem solid; background: var(--card) }
.verdict b { font-size: 1.3rem } .verdict p { margin: .25rem 0 0; color: var(--text) }
td.place { width: 30%; font-family: ui-monospace, monospace; font-size: .9rem }
td.message { white-space: pre-line } td.picture { width: 7.5rem }
td.picture img { max-width: 100%; max-height: 6rem; display: block }
.pair { display: flex; gap: .3rem; width: 15rem; max-width: 100% }
.pair > * { flex: 0 1 auto; min-width: 0; max-width: 50% }
details { margin: .75rem 0; padding: .5rem .9rem; border: 1px solid var(--line) }
summary { cursor: pointer }
.chart { overflow-x: auto; background: #fff; border: 1px solid var(--line) }
.chart img { display: block; max-width: max(100%, 56rem); margin: 0 auto }
.samples span { display: inline-block; margin: .1rem .2rem .1rem 0; padding: 0 .45rem;
  border-radius: .7rem; background: var(--card); font-size: .9rem }
@media (max-width: 40rem) { .findings tr { display: block; border-bottom: 1px solid var(--line) }
  .findings td { display: block; width: auto; border: 0; padding: .15rem .6rem }
  .findings thead { display: none }
  td.picture img { max-width: 10rem } .nothing { display: inline-block } }
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
    body = f"""<h1>Check of the data set <bdi>{_text(name)}</bdi></h1>
{_verdict(report)}
{_summary(report)}
{_findings(report)}
{_chart("Images per class", histogram, "Bar chart of the images that each label has in each list")}
{_chart("Labels that occur together", cooccurrence, "Matrix of how often labels occur together")}
{_samples(report)}
{_classes(report)}"""
    write_text(path, document(f"Check of {name}", body, style=_STYLE))


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
        _pictures(root, finding) if number < thumbnails else ""
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


def _pictures(root: Path, finding: Finding) -> str:
    """The picture that a finding is about; where there are two, side by side."""
    named = [name for name in (finding.image, finding.twin) if name]
    pictures = [_picture(root, name, THUMBNAIL_SIDE, alt=name) for name in named]
    return f'<div class="pair">{"".join(pictures)}</div>' if len(named) == 2 else "".join(pictures)


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
    return jpeg(picture, alt=alt)


def _chart(title: str, path: Path | None, description: str) -> str:
    if path is None:
        return ""
    source = f"data:image/png;base64,{encode(path.read_bytes())}"
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
    rows = [
        f'<tr><td class="number">{k}</td><th scope="row"><bdi>{_text(label)}</bdi></th>'
        + "".join(_class_count(values[k], name in report.splits) for name, values in columns)
        + "</tr>"
        for k, label in enumerate(report.labels)
    ]
    return table_of_labels(heads, rows)


def _class_count(count: int, is_fault: bool) -> str:
    missing = " error" if is_fault and not count else ""
    return f'<td class="number{missing}">{count:,}</td>'
