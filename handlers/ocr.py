"""Reads text out of pictures by RapidOCR, whose wheel carries its models (PP-OCRv6: Latin scripts, Chinese, Japanese).

Loaded when a task first needs it: the models take a second and 140 MiB, a page of 3,000 characters ten more seconds of
one core and 450 MiB in all.
"""

from __future__ import annotations

import functools
import resource
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image

MAX_SIDE = 2000
"""Pixels; a larger picture is made smaller first. That is an A4 page at 170 dots per inch."""
BUDGET_S = 80
"""Of wall time, for all pictures of a task: the policies that read pictures have 120."""
_SHARE_OF_CPU = 0.6
"""Of the limit of the process, beyond which no further picture is begun."""
_SETTINGS = {
    "Global.log_level": "error",
    "Global.use_cls": False,  # which way up a line is: pages are turned before
    "Det.limit_type": "max",
    "Det.limit_side_len": 960,
    "Rec.rec_batch_num": 1,  # six lines at once take three times the memory and no less time
    "EngineConfig.onnxruntime.intra_op_num_threads": 2,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    "EngineConfig.onnxruntime.enable_cpu_mem_arena": True,
}


class Line(NamedTuple):
    """A line of text as it was read."""

    text: str
    confidence: float
    """0 to 1, the model's own."""
    box: list[list[int]]
    """Its four corners, x and y in pixels, from the upper left on clockwise."""


class Budget:
    """The time that a task may spend on pictures."""

    def __init__(self) -> None:
        self._end_s = time.monotonic() + BUDGET_S
        limit_s = resource.getrlimit(resource.RLIMIT_CPU)[0]
        self._cpu_s = float("inf") if limit_s == resource.RLIM_INFINITY else limit_s * _SHARE_OF_CPU

    @property
    def is_spent(self) -> bool:
        """Whether no further picture should be begun."""
        return time.monotonic() > self._end_s or time.process_time() > self._cpu_s


def read(image: Image.Image) -> list[Line]:
    """The lines of a picture, from top to bottom and left to right."""
    import numpy as np  # noqa: PLC0415 only where pictures are read

    image = image.convert("RGB")
    factor = min(MAX_SIDE / max(image.size), 1)
    if factor < 1:
        image = image.resize((max(round(image.width * factor), 1), max(round(image.height * factor), 1)))
    found = _engine()(np.asarray(image)[:, :, ::-1])
    if found.txts is None:
        return []
    lines = zip(found.txts, found.scores, found.boxes, strict=True)
    return [
        Line(text, round(float(score), 4), [[round(float(side) / factor) for side in corner] for corner in box])
        for text, score, box in lines
    ]


def confidence(lines: Sequence[Line]) -> float | None:
    """The mean over all characters; None without any."""
    weights = [(len(line.text), line.confidence) for line in lines]
    whole = sum(weight for weight, _ in weights)
    return round(sum(weight * value for weight, value in weights) / whole, 4) if whole else None


@functools.cache
def _engine() -> Any:
    had, socket.has_ipv6 = socket.has_ipv6, False  # urllib3, which it loads, would try a socket at its import
    try:
        from rapidocr import RapidOCR  # noqa: PLC0415 half a second, and only few tasks need it
    finally:
        socket.has_ipv6 = had
    return RapidOCR(params=dict(_SETTINGS))
