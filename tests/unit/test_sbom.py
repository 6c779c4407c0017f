"""When `make sbom` says that its bill misses a package."""

from __future__ import annotations

from typing import Any

from tests.programs.sbom import INSTALLED, components, pins

ONE, TWO = "1" * 64, "2" * 64
LOCK = f"""# made by a tool
Some.Name[extra]==1.2 ; python_full_version >= '3.11' \\
    --hash=sha256:{ONE} \\
    --hash=sha256:{TWO}
other==3
"""


def bill(*digests: str) -> dict[str, Any]:
    """A bill with both packages, of which one has these digests."""
    hashes = [{"alg": "SHA-256", "content": digest} for digest in digests]
    some = {"name": "Some.Name", "version": "1.2", "externalReferences": [{"hashes": hashes}]}
    return {"components": [some, {"name": "other", "version": "3"}]}


def test_each_package_is_looked_for_with_each_of_its_hashes() -> None:
    """Whatever extras and conditions the lock has."""
    assert {f"some.name 1.2 {ONE} {TWO}", "other 3 "} == pins(LOCK) == components(bill(TWO, ONE))
    assert {f"some.name 1.2 {ONE} {TWO}"} == pins(LOCK) - components(bill(ONE))


def test_no_package_of_the_image_is_overlooked() -> None:
    """As many as the locks have lines with a version."""
    for lock in INSTALLED:
        text = lock.read_text(encoding="utf-8")
        assert len(pins(text)) == sum("==" in line and not line.startswith((" ", "#")) for line in text.splitlines())
