"""Makes the font that pdfium measures East Asian text by where a PDF brings none: every sign is the same box.

``python -m tests.support.placeholder_font`` writes it anew. A font of real shapes would be 4 MB or more, and nobody
looks at these pages: only their text is read, which a PDF names by codes of its own.
"""

from __future__ import annotations

import io
from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import newTable
from fontTools.ttLib.tables._c_m_a_p import CmapSubtable

PLACE = Path(__file__).resolve().parents[2] / "handlers" / "documents" / "fonts" / "placeholder.ttf"
UNITS = 1000
EAST_ASIAN = (1 << 17) | (1 << 18) | (1 << 19) | (1 << 20) | (1 << 21)
"""OS/2, ulCodePageRange1: Japanese, simplified Chinese, Korean (Wansung), traditional Chinese, Korean (Johab)."""
RANGES = ((0x1100, 0x11FF), (0x2E80, 0xD7FF), (0xF900, 0xFAFF), (0xFE30, 0xFE4F), (0xFF00, 0xFFEF), (0x20000, 0x323AF))
OTHERS = ((0x20, 0x7E), (0xA0, 0x52F), (0x2000, 0x2BFF))


def font() -> bytes:
    """The font, the same bytes each time."""
    pen = TTGlyphPen(None)
    for number, point in enumerate(((50, 0), (50, 800), (950, 800), (950, 0))):
        pen.lineTo(point) if number else pen.moveTo(point)
    pen.closePath()
    box = pen.glyph()
    builder = FontBuilder(UNITS, isTTF=True)
    builder.setupGlyphOrder([".notdef", "box"])
    builder.setupGlyf({".notdef": box, "box": box})
    builder.setupHorizontalMetrics({".notdef": (UNITS, 50), "box": (UNITS, 50)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.font["cmap"] = _map()
    builder.setupNameTable({"familyName": "Placeholder CJK", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200, ulCodePageRange1=EAST_ASIAN | 1, version=4)
    builder.setupPost()
    builder.font["head"].created = builder.font["head"].modified = 0
    builder.font.recalcTimestamp = False
    content = io.BytesIO()
    builder.save(content)
    return content.getvalue()


def _map() -> object:
    """Format 13, in which a range of characters shares one glyph."""
    table = CmapSubtable.newSubtable(13)
    table.platformID, table.platEncID, table.language = 3, 10, 0
    table.cmap = {code: "box" for first, last in (*OTHERS, *RANGES) for code in range(first, last + 1)}
    found = newTable("cmap")
    found.tableVersion, found.tables = 0, [table]
    return found


if __name__ == "__main__":
    PLACE.write_bytes(font())
