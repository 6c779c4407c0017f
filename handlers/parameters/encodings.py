"""The encodings of text that a request may name, for documents and for CSV files."""

from __future__ import annotations

from typing import Literal

Encoding = Literal[
    "utf-8", "utf-16", "utf-32", "ascii", "windows-1250", "windows-1251", "windows-1252", "windows-1253",
    "windows-1254", "iso-8859-1", "iso-8859-2", "iso-8859-15", "koi8-r", "shift_jis", "euc-jp", "gb18030", "big5",
    "euc-kr",
]  # fmt: skip
