"""The models that handlers ask, each loaded once: by a rehearsal in the zygote, so that a run finds it in memory.

Nothing is loaded at import. What a function here loads it keeps, single-threaded, so that a fork may follow.

    MODELS_DIR/all-MiniLM-L6-v2-int8/   sentence encoder: model.onnx, tokenizer.json (``make models``)
    MODELS_DIR/bge-small-en-int8/       a second one, for sentiment, if the operator put it there
    MODELS_DIR/NAME/                    an operator's text classifier: model.onnx, tokenizer.json, config.json
    MODELS_DIR/*/mapped/                what ``engine models`` makes of a model.onnx, for zygotes to share its weights
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

from handlers.failures import Refusal
from handlers.mapped_weights import mapped_weights

ENCODER = "all-MiniLM-L6-v2-int8"
SENTIMENT_ENCODER = "bge-small-en-int8"
FILES = ("model.onnx", "tokenizer.json")
CLASSIFIER_FILES = (*FILES, "config.json")

MAX_WINDOWS = 16
"""Of a longer text so many windows are read, spread evenly over it: about 4,000 words, 1.4 s of one core."""
ENCODER_TOKENS = 256
"""Longest window of the encoder: what it was trained with, see its model card."""
CLASSIFIER_TOKENS = 512
"""Longest window of a classifier whose own limit is not lower."""
MAPPED = "mapped"
"""Folder beside a model's file: the form of it that zygotes map."""
MAPPED_FROM_BYTES = 1024
"""Weights of so many bytes or more are mapped."""
PRELOADED_MIB = 64
"""Operators' models are loaded in the zygote as long as their files come to no more; the others when a task asks."""

Vector = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class UsedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that an answer rests on."""

    name: str
    digest: str
    """``sha256:`` and the digest of its file; of a folder that of the lines ``sha256sum`` prints for its files."""


class ClassifierConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a classifier's config.json that is read; Hugging Face's transformers writes this form."""

    id2label: dict[str, str]
    problem_type: str | None = None
    max_position_embeddings: int | None = None


def folder() -> Path:
    """Where a run sees the operator's ``MODELS_DIR``."""
    return Path(os.environ.get("MODELS_DIR", "/models"))


@functools.cache
def encoder() -> Encoder:
    """The sentence encoder.

    Raises:
        Refusal: it is not in ``MODELS_DIR``.
    """
    return Encoder(folder() / ENCODER)


def sentiment_encoder() -> FirstTokenEncoder | None:
    """The encoder that keeps what a text feels like; None where the policy or the operator grants none.

    Raises:
        Refusal: it cannot be used.
    """
    return _sentiment_encoder() if (folder() / SENTIMENT_ENCODER / FILES[0]).is_file() else None


@functools.cache
def _sentiment_encoder() -> FirstTokenEncoder:
    return FirstTokenEncoder(folder() / SENTIMENT_ENCODER)


def classifier_names() -> list[str]:
    """The operator's classifiers: folders of ``MODELS_DIR`` that have all files of one."""
    try:
        with os.scandir(folder()) as entries:
            found = sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []
    return [name for name in found if all((folder() / name / file).is_file() for file in CLASSIFIER_FILES)]


def classifier(name: str) -> Classifier:
    """An operator's classifier.

    Raises:
        Refusal: there is none of this name, or it cannot be used.
    """
    known = classifier_names()
    if name not in known:
        there = (
            f"available: {', '.join(known)}" if known else "none is available; handlers/README.md says how to add one"
        )
        raise Refusal("unknown_model", f"No model {name!r}; {there}.")
    return _classifier(name)


@functools.cache
def _classifier(name: str) -> Classifier:
    return Classifier(folder() / name)


def preload_classifiers() -> None:
    """Load the operator's small models. One that cannot be loaded is left to the task that asks for it."""
    left_bytes = PRELOADED_MIB << 20
    for name in classifier_names():
        left_bytes -= (folder() / name / FILES[0]).stat().st_size
        if left_bytes < 0:
            return
        try:
            _classifier(name)
        except Refusal:
            continue


class Transformer:
    """A model in ONNX and its tokenizer.

    Args:
        place: folder of ``model.onnx`` and ``tokenizer.json``.
        tokens: longest window.
    Raises:
        Refusal: a file is missing or is not what its name says.
    """

    def __init__(self, place: Path, tokens: int) -> None:
        self.name = place.name
        if missing := [file for file in FILES if not (place / file).is_file()]:
            raise Refusal(
                "model_missing",
                f"The model {self.name} lacks {' and '.join(missing)} in MODELS_DIR; run `make models`.",
            )
        try:
            self._tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(place / FILES[1]))
            self._session, self._weights = _open_session(place / FILES[0])  # which the session reads, as long as it is
        except Exception as error:  # the two libraries have no list of what they raise over a bad file
            raise unusable(self.name, error) from None
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=tokens)
        self._inputs = {given.name: _integers(given.type) for given in self._session.get_inputs()}
        self.used = UsedModel(name=self.name, digest=digest_of_file(place / FILES[0]))

    def outputs(self, text: str) -> list[Vector]:
        """The first output for each window of a text, without the batch's axis.

        Windows are asked one by one: in a batch, one would be padded to the length of another.
        """
        encoded = self._tokenizer.encode(text)
        return [self._output(window) for window in spread([encoded, *encoded.overflowing], MAX_WINDOWS)]

    def _output(self, window: Any) -> Vector:
        there = {"input_ids": window.ids, "attention_mask": window.attention_mask, "token_type_ids": window.type_ids}
        if unknown := sorted(set(self._inputs) - set(there)):
            raise unusable(self.name, f"it wants the input {', '.join(unknown)}")
        try:
            output = self._session.run(
                None, {name: np.array([there[name]], kind) for name, kind in self._inputs.items()}
            )
        except Exception as error:
            raise unusable(self.name, error) from None
        found: Vector = output[0][0]
        return found


class Encoder(Transformer):
    """Turns a text into a vector whose direction is what the text is about."""

    def __init__(self, place: Path) -> None:
        super().__init__(place, ENCODER_TOKENS)

    def embed(self, text: str) -> Vector:
        """A vector of 384 numbers and length 1: the mean over the tokens, see the model card; over windows, too."""
        return _unit(np.mean([_unit(tokens.mean(axis=0)) for tokens in self.outputs(text)], axis=0))


class FirstTokenEncoder(Transformer):
    """Turns a text into a vector: that of its first token, as BGE was trained (its model card)."""

    def __init__(self, place: Path) -> None:
        super().__init__(place, ENCODER_TOKENS)

    def embed(self, text: str) -> Vector:
        """A vector of 384 numbers and length 1, the mean over windows."""
        return _unit(np.mean([_unit(tokens[0]) for tokens in self.outputs(text)], axis=0))


class Classifier(Transformer):
    """An operator's text classifier."""

    def __init__(self, place: Path) -> None:
        try:
            config = msgspec.json.decode((place / CLASSIFIER_FILES[2]).read_bytes(), type=ClassifierConfig)
            self._labels = [config.id2label[str(number)] for number in range(len(config.id2label))]
        except (msgspec.MsgspecError, KeyError) as error:
            raise unusable(place.name, f"config.json: {error}") from None
        self._independent = config.problem_type == "multi_label_classification"
        super().__init__(place, min(CLASSIFIER_TOKENS, config.max_position_embeddings or CLASSIFIER_TOKENS))

    def scores(self, text: str) -> dict[str, float]:
        """Label → probability, the mean over the windows of a text; sums to 1 unless the labels are independent."""
        logits = np.array(self.outputs(text), np.float64)
        if logits.shape[1:] != (len(self._labels),) or not np.isfinite(logits).all():
            raise unusable(self.name, f"it gives no {len(self._labels)} numbers, one for each label of config.json")
        shares = 1 / (1 + np.exp(-logits)) if self._independent else softmax(logits)
        return dict(zip(self._labels, shares.mean(axis=0).tolist(), strict=True))


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Shares that sum to 1 along the last axis."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: np.ndarray[Any, Any] = shares / shares.sum(axis=-1, keepdims=True)
    return found


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most ``count`` of the items, evenly spread, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(number * (len(items) - 1) / (count - 1))] for number in range(count)]


def unusable(name: str, reason: object) -> Refusal:
    """The refusal for a model that exists and does not work."""
    sentence = str(reason).partition("\n")[0][:300]
    return Refusal(
        "unusable_model", f"The model {name} cannot be used: {sentence}. handlers/README.md says what it needs."
    )


@functools.cache
def digest_of_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def digest_of_folder(place: Path) -> str:
    """SHA-256 of the lines that ``sha256sum`` prints for the folder's files, sorted by their paths."""
    paths = sorted(path for path in place.rglob("*") if path.is_file() and path.suffix != ".pyc")
    lines = [f"{digest_of_file(path).removeprefix('sha256:')}  {path.relative_to(place)}\n" for path in paths]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _open_session(path: Path) -> tuple[Any, list[Any]]:
    """A session over a model, and the weights that are mapped for it: none where the model has no mapped form."""
    options, mapped, weights = _session_options(), mapped_form(path), []
    if mapped.is_file():
        path = mapped
        options.graph_optimization_level = onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL  # that is done
        # packed for the processor they would be copies, 60 MiB in each zygote; an answer takes a tenth longer without
        options.add_session_config_entry("session.disable_prepacking", "1")
        for name, value in mapped_weights(mapped):
            weights.append(onnxruntime().OrtValue.ortvalue_from_numpy(value))
            options.add_initializer(name, weights[-1])
    return onnxruntime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"]), weights


def _session_options() -> Any:
    onnx = onnxruntime()
    options = onnx.SessionOptions()
    # one thread, or the zygote could not fork; a pool of threads would not be there after it
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnx.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False  # or a long text's memory would be kept
    return options


def mapped_form(path: Path) -> Path:
    """Where a model lies in a form that all zygotes share, because its weights are mapped from a file.

    The name says from which file it was made, and by which onnxruntime: no other is taken for it. It need not exist.
    """
    made_from = f"{digest_of_file(path).removeprefix('sha256:')[:32]}-{onnxruntime().__version__}"
    return path.parent / MAPPED / made_from / path.name


def make_mapped_form(path: Path) -> bool:
    """Write the mapped form of a model beside it, unless it is there, and remove those of other files and versions.

    A zygote that has mapped one of these keeps it; one that looks for it reads the model itself.

    Returns:
        whether it was written: not of a model whose weights lie in files of their own, of which the name says nothing.
    Raises:
        Refusal: onnxruntime cannot read the model.
        OSError: its folder cannot be written.
    """
    mapped = mapped_form(path)
    if mapped.is_file() or _has_weights_elsewhere(path):
        return False
    mapped.parents[1].mkdir(exist_ok=True)
    mapped.parents[1].chmod(0o755)
    new = Path(tempfile.mkdtemp(prefix=".", dir=mapped.parents[1]))
    options = _session_options()
    # what fits any processor; the level above it lays data out for the one that it runs on
    options.graph_optimization_level = onnxruntime().GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(new / mapped.name)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(MAPPED_FROM_BYTES)
    )
    try:
        onnxruntime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for made in (new, *new.iterdir()):
            made.chmod(0o755 if made.is_dir() else 0o644)  # zygotes run as another user
        with contextlib.suppress(FileExistsError):  # another process was quicker
            new.rename(mapped.parent)
        for other in mapped.parents[1].glob("[!.]*"):
            if other != mapped.parent:
                shutil.rmtree(other, ignore_errors=True)
    except OSError:
        raise
    except Exception as error:  # the library has no list of what it raises over a bad file
        raise unusable(path.parent.name, error) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return True


def _has_weights_elsewhere(path: Path) -> bool:
    try:
        return any(True for _ in mapped_weights(path))
    except (ValueError, LookupError) as error:
        raise unusable(path.parent.name, error) from None


@functools.cache
def onnxruntime() -> ModuleType:
    """The module, imported with its telemetry off: that would report to its maker, from a thread of its own."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    with _silenced():  # at its import it warns that it found no /proc/cpuinfo, and no setting keeps it from that
        return importlib.import_module("onnxruntime")


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Point descriptor 2 to /dev/null: native code writes there past ``sys.stderr``."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def _integers(type_: str) -> type[np.integer[Any]]:
    return np.int32 if "int32" in type_ else np.int64


def _unit(vector: Vector) -> Vector:
    length = math.sqrt(float(vector @ vector))
    return vector / np.float32(length or 1.0)
