"""The OpenAPI document as one page of HTML: no script, no font, no address of anybody else, so it works offline."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from typing import Any

_PROBLEM = "application/problem+json"
STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{margin-top:3rem;border-bottom:1px solid var(--line)}
code,pre{font:13px/1.45 ui-monospace,monospace}pre{background:var(--soft);padding:.7rem;overflow:auto;border-radius:6px}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid var(--line);padding:.3rem .5rem;
text-align:left;vertical-align:top}th{font-weight:600}
.method{display:inline-block;min-width:4.4rem;font-weight:700}details{margin:.5rem 0}summary{cursor:pointer}
"""


def content_security_policy() -> str:
    """The only thing that the page may load is its own style sheet."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def build_docs(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    info = document["info"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{_text(info['title'])}</title><style>{STYLE}</style></head><body>",
        f"<h1>{_text(info['title'])}</h1><p>{_text(info['description'])} Version {_text(info['version'])}.",
        ' Machine-readable: <a href="/openapi.json"><code>/openapi.json</code></a>.</p>',
        _contents(document),
        f"<h2>Keys</h2><p>{_prose(_KEYS)}</p>",
        "<h2>Calls</h2>",
    ]
    for path, methods in document["paths"].items():
        parts += [_call(method, path, operation) for method, operation in methods.items()]
    parts.append('<h2 id="types">Types</h2>')
    parts += [_type(name, schema) for name, schema in document["components"]["schemas"].items()]
    return "".join([*parts, "</body></html>"])


_KEYS = (
    "Where the service has keys, each call sends one: `Authorization: Bearer uak_…`, or `X-API-Key: uak_…`. An "
    "operator makes one by `python -m engine keys new --tenant NAME --scopes submit,read`; each call names the scope "
    "that it needs. In a browser, the console at `/` signs in with a key, runs every task type from a form, and shows "
    "what to send as curl, Python and JavaScript."
)


def _contents(document: dict[str, Any]) -> str:
    """A list of the calls, each a link to its place."""
    rows = [
        f'<tr><td><a href="#{_text(operation["operationId"])}"><span class="method">{_text(method.upper())}</span> '
        f"<code>{_text(path)}</code></a></td><td>{_prose(operation['summary'])}</td></tr>"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return f'<nav aria-label="Contents"><table>{"".join(rows)}</table><p><a href="#types">Types</a></p></nav>'


def build_refusal(path: str, detail: str) -> str:
    """What a person sees who opens an address in a browser that has no session: what is wrong, and what to do.

    It has no style sheet: only the documentation's own address may load one.

    Args:
        path: that was opened.
        detail: why it was refused, in a sentence.
    """
    curl = f'curl -H "authorization: Bearer $KEY" …{path}'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>An API key is needed</title></head>'
        f"<body><main><h1>An API key is needed</h1><p>{_prose(detail)}</p><ul>"
        f'<li>In a browser: <a href="/">sign in to the console</a> with your key, then open '
        f'<a href="{_text(path)}">{_text(path)}</a> again.</li>'
        f"<li>In a program: <code>{_text(curl)}</code></li>"
        "<li>If you have no key, ask the operator, who makes one by "
        "<code>python -m engine keys new --tenant NAME</code>.</li></ul></main></body></html>"
    )


def _call(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = []
    for item in operation.get("parameters", ()):
        name = f"<code>{_text(item['name'])}</code> ({_text(item['in'])})"
        rows.append(f"<tr><td>{name}</td><td>{_prose(item['description'])}</td></tr>")
    body = operation.get("requestBody")
    if body:
        rows.append(f"<tr><td>body</td><td>{_content(body['content'])}</td></tr>")
    refused: list[str] = []
    for status, answer in operation["responses"].items():
        is_refusal = _PROBLEM in answer.get("content", {})
        about = f"{_prose(answer['description'])} {_content(answer.get('content', {}), named=not is_refusal)}"
        (refused if is_refusal else rows).append(f"<tr><td>{_text(status)}</td><td>{about}</td></tr>")
    title = f'<span class="method">{_text(method.upper())}</span> <code>{_text(path)}</code>'
    texts = "".join(
        f"<p>{_prose(text)}</p>" for text in (operation["summary"], *operation["description"].split("\n\n"))
    )
    folded = f"<details><summary>Refusals ({len(refused)})</summary><table>{''.join(refused)}</table></details>"
    place = _text(operation["operationId"])
    return f'<h3 id="{place}">{title}</h3>{texts}<table>{"".join(rows)}</table>{folded if refused else ""}'


def _content(content: dict[str, Any], *, named: bool = True) -> str:
    """Media types, types and examples; of what is everywhere the same, the examples only."""
    parts = []
    for media, described in content.items():
        if named:
            parts.append(f"<code>{_text(media)}</code> {_shape(described.get('schema', {}))}")
        for name, example in described.get("examples", {}).items():
            parts.append(_example(f"Example: {name}", example["value"]))
    return " ".join(parts)


def _example(title: str, value: Any) -> str:
    text = json.dumps(value, indent=2)
    return f"<details><summary>{_text(title)}</summary><pre>{_text(text)}</pre></details>"


def _type(name: str, schema: dict[str, Any]) -> str:
    title = f'<h3 id="{_text(name)}"><code>{_text(name)}</code></h3><p>{_prose(schema.get("description", ""))}</p>'
    if "properties" not in schema:
        return f"{title}<p>{_shape(schema)}</p>"
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{_text(field)}</code>{'' if field in required else ' (optional)'}</td>"
        f"<td>{_shape(about)}</td><td>{_prose(about.get('description', ''))}</td></tr>"
        for field, about in schema["properties"].items()
    )
    examples = "".join(_example("Example", value) for value in schema.get("examples", ()))
    return f"{title}<table><tr><th>field</th><th>type</th><th></th></tr>{rows}</table>{examples}"


def _shape(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = _text(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for word in ("oneOf", "anyOf"):
        if word in schema:
            return " or ".join(_shape(option) for option in schema[word])
    if "const" in schema:
        return f"<code>{_text(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return ", ".join(f"<code>{_text(json.dumps(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {_shape(schema.get('items', {}))}" if schema.get("items") else "array"
    bounds = [
        f"{sign} {_text(schema[key])}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", "&gt;"), ("maximum", "≤"), ("maxLength", "length ≤"))
        if key in schema
    ]
    return _text(schema.get("type", "any JSON")) + (f" ({', '.join(bounds)})" if bounds else "")


def _prose(text: str) -> str:
    """A text in which backticks mark code."""
    parts = _text(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)
