"""Every request that the README shows runs as it stands."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.support.stack import ROOT

_REQUEST = re.compile(
    r"^curl -s 'localhost:8001(?P<target>/[^']*)' -H '(?P<header>[^']*)' -d '(?P<body>\{.*?\})'$",
    re.MULTILINE | re.DOTALL,
)
REQUESTS = [
    (found["target"], json.loads(found["body"])) for found in _REQUEST.finditer((ROOT / "README.md").read_text())
]
TASK_TYPES = {
    "custom_script", "data_processing", "document_processing", "image_processing", "ml_inference", "web_scraping",
}  # fmt: skip
_NO_WAY_THERE = ("connection_failed", "dns_failed", "timeout")


def test_the_readme_has_an_example_of_each_task_type() -> None:
    """And this test finds every ``curl`` of it."""
    assert TASK_TYPES == {body["task_type"] for _, body in REQUESTS}
    assert (ROOT / "README.md").read_text().count("curl -s") == len(REQUESTS)


@pytest.mark.parametrize(
    ("target", "body"), REQUESTS, ids=[f"{n}-{body['task_type']}" for n, (_, body) in enumerate(REQUESTS)]
)
def test_an_example_of_the_readme_runs(client: httpx.Client, target: str, body: dict[str, Any]) -> None:
    """With exit reason ok; one that fetches from the Internet may end by there being no way there."""
    answer = client.post(target, json=body).json()
    if "example.com" in json.dumps(body) and answer["exit_reason"] == "error":
        code = answer["error"]["code"]
        assert code in _NO_WAY_THERE or "ProxyError" in answer["error"]["type"], answer["error"]
    else:
        assert "ok" == answer["exit_reason"], answer
