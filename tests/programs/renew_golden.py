"""``python -m tests.programs.renew_golden``: write down what policies say and what commands print on
terminals of three widths, for a reviewer to compare.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.policies.show import show
from sandbox import read_policies
from tests.support.screens import GOLDEN, screens

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "tests" / "unit" / "golden" / "policy_show"


def pages() -> dict[str, str]:
    """Policy name → its page."""
    return {name: show(file) for name, file in read_policies(ROOT / "policies").items()}


def main() -> None:
    """Write every page, and take away those whose policy has gone."""
    found = pages()
    PAGES.mkdir(parents=True, exist_ok=True)
    for path in PAGES.glob("*.txt"):
        if path.stem not in found:
            path.unlink()
    for name, page in found.items():
        (PAGES / f"{name}.txt").write_text(page, encoding="utf-8")
    print(f"{len(found)} pages written to {PAGES.relative_to(ROOT)}")
    printed = screens()
    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir(parents=True)
    for name, text in printed.items():
        (GOLDEN / f"{name}.txt").write_text(text, encoding="utf-8")
    print(f"{len(printed)} screens written to {GOLDEN.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
