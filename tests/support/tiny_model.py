"""A text classifier in the form that operators bring: an ONNX file written by hand, a tokenizer, a configuration.

It knows two words: ``good`` speaks for the first label, ``bad`` for the second, and every other word for neither.
Source of the field numbers: onnx.proto3 of the ONNX repository, protobuf's wire format.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

LABELS = ("happy", "unhappy")
WORDS = ("[UNK]", "good", "bad")
WEIGHTS = ((0.0, 0.0), (4.0, -4.0), (-4.0, 4.0))
_FLOAT, _INT64, _INTS, _INT = 1, 7, 7, 2


def write(folder: Path, *, weights: tuple[tuple[float, ...], ...] = WEIGHTS, labels: tuple[str, ...] = LABELS) -> Path:
    """Write the three files of a classifier into a folder, which is made."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(onnx_bytes(weights))
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"id2label": dict(enumerate(labels)), "model_type": "bert", "max_position_embeddings": 8}
    (folder / "config.json").write_text(json.dumps(config))
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


def onnx_bytes(weights: tuple[tuple[float, ...], ...] = WEIGHTS, *, other_input: str = "attention_mask") -> bytes:
    """logits = the mean of the rows of ``weights`` that input_ids name."""
    table = np.array(weights, np.float32)
    gather = _node("Gather", ["weights", "input_ids"], "rows")
    axes = _text(1, "axes") + _number(8, 1) + _number(20, _INTS)
    keepdims = _text(1, "keepdims") + _number(3, 0) + _number(20, _INT)
    mean = _node("ReduceMean", ["rows"], "logits", axes, keepdims)
    tensor = b"".join(_number(1, size) for size in table.shape)
    tensor += _number(2, _FLOAT) + _text(8, "weights") + _message(9, table.tobytes())
    inputs = [_value("input_ids", _INT64, "batch", "length"), _value(other_input, _INT64, "batch", "length")]
    graph = _message(1, gather) + _message(1, mean) + _text(2, "tiny") + _message(5, tensor)
    graph += b"".join(_message(11, value) for value in inputs)
    graph += _message(12, _value("logits", _FLOAT, "batch", "labels"))
    return _number(1, 8) + _message(7, graph) + _message(8, _text(1, "") + _number(2, 13))


def _node(operator: str, inputs: list[str], output: str, *attributes: bytes) -> bytes:
    named = b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(4, operator)
    return named + b"".join(_message(5, attribute) for attribute in attributes)


def _value(name: str, kind: int, *dimensions: str) -> bytes:
    shape = b"".join(_message(1, _text(2, dimension)) for dimension in dimensions)
    return _text(1, name) + _message(2, _message(1, _number(1, kind) + _message(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])
