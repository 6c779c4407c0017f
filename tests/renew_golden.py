"""``python -m tests.renew_golden``: write the pages of the shipped policies anew, for a reviewer to compare."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "tests" / "unit" / "golden" / "policy_show"


def pages() -> dict[str, str]:
    """Policy name → its page."""
    sys.path.insert(0, str(ROOT))
    from engine.policy_show import show  # noqa: PLC0415 found by the line above
    from sandbox import read_policies  # noqa: PLC0415

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


if __name__ == "__main__":
    main()
