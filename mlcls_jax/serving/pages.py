"""The pages that people see: the one to try the model with, and the list of the paths."""

import base64
import hashlib
import html
import re
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax.serving.service import MAX_DETAILED, Service

_DOCS_STYLE = """
:root{color-scheme:light dark;
--faint:light-dark(#5f6368,#9aa0a6);--line:light-dark(#dadce0,#3c4043)}
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:0 auto;padding:1rem}
code{font-size:.92em}section{border-top:1px solid var(--line)}
table{border-collapse:collapse;width:100%}
td{border-top:1px solid var(--line);padding:.3rem .6rem .3rem 0;vertical-align:top}
td:first-child{white-space:nowrap}.faint{color:var(--faint)}
"""


def front_page() -> tuple[str, str]:
    """The page at /, for any model, and its Content-Security-Policy: nothing from outside."""
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return text, _policy(text, "connect-src 'self'; img-src data:")


def settings(service: Service) -> dict[str, Any]:
    """What the page must know of the model; `thresholds` is a number, one a label, or None."""
    bundle = service.predictor.bundle
    threshold = service.predictor.threshold(None)
    return {
        "model": bundle.model.network.config.name,
        "labels": len(bundle.labels),
        "thresholds": np.round(threshold, 5).tolist() if threshold is not None else None,
        "explain": service.can_explain,
        "shown": MAX_DETAILED,
        "megabytes": service.options.max_body_mb,
    }


def docs_page(openapi: dict[str, Any]) -> tuple[str, str]:
    """What `openapi` describes, as a page without scripts, and its policy."""
    sections = [
        f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2>"
        f"<p>{html.escape(operation.get('summary', ''))}</p>{_body(operation)}{_answers(operation)}"
        "</section>"
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    title = html.escape(f"{openapi['info']['title']} {openapi['info']['version']}")
    text = f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}: API</title>
<style>{_DOCS_STYLE}</style>
<h1>{title}</h1>
<p>{html.escape(openapi["info"].get("summary", ""))}. <a href="openapi.json">openapi.json</a> is the
same for programs; <a href="./">the page at /</a> is for trying it.</p>
{"".join(sections)}
</html>
"""
    return text, _policy(text, "img-src data:")


def _body(operation: dict[str, Any]) -> str:
    parts = []
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        required = schema.get("required", ())
        rows = "".join(
            f"<tr><td><code>{html.escape(name)}</code>{'' if name in required else ' (optional)'}"
            f"<td>{html.escape(field.get('description', ''))}</tr>"
            for name, field in schema.get("properties", {}).items()
        )
        text = f"<table>{rows}</table>" if rows else "<p>The image itself; options as a query.</p>"
        parts.append(f"<h3><code>{html.escape(kind)}</code></h3>{text}")
    return "".join(parts)


def _answers(operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(code)}<td>{html.escape(answer['description'])}</tr>"
        for code, answer in operation["responses"].items()
    )
    return f"<h3>Answers</h3><table>{rows}</table>"


def _policy(page: str, more: str) -> str:
    def hashes(tag: str) -> str:
        contents = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (hashlib.sha256(content.encode()).digest() for content in contents)
        return " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests) or "'none'"

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; {more};"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
