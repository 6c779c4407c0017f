"""``.libraries/scripts/bin/python -m tests.quality.train_sentiment``: works out handlers/trained/sentiment.json anew.

Two multinomial logistic regressions (scikit-learn, which the set of scripts has) over the rated sentences of which no
part is for tests: over VADER's three numbers, the encoder's vector and the words, and over VADER's numbers alone. Takes
eight minutes.
"""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from handlers import markup, models, sentiment
from tests.quality import sources
from tests.support.entry_process import ROOT

STRENGTH = 1.0
"""Of scikit-learn's default regularization."""
DIGITS = 4
MIN_TEXTS = 3
"""A phrase that fewer of the texts have gets no weight."""
ABOUT = (
    "Multinomial logistic regressions over VADER's compound, pos and neg of a text and, in the first, BGE's vector and "
    "the words and pairs of words. Made by tests/quality/train_sentiment.py from the ratings in vaderSentiment 3.3.2 "
    "(MIT): documents whose checksum leaves them to training, {count} sentences."
)


def main() -> None:
    """Train, and write the file."""
    os.environ["MODELS_DIR"] = str(ROOT / "models")
    encoder = models.sentiment_encoder()
    if encoder is None:
        raise SystemExit("The encoder is missing: handlers/README.md says where it comes from.")
    rows = [row for row in sources.rated() if not row.for_test]
    texts = [markup.see(row.text).text for row in rows]
    labels = np.array([sentiment.LABELS.index(row.label) for row in rows])
    felt = np.array([sentiment._by_lexicon(text) for text in texts])
    vectors = np.stack([encoder.embed(text) for text in texts])
    head = {
        "about": ABOUT.format(count=len(rows)),
        "encoder": encoder.used.digest,
        "with_encoder": trained_with_phrases(np.hstack([felt, vectors]), texts, labels),
        "lexicon_only": trained(felt, labels),
    }
    sentiment.HEAD_FILE.write_text(json.dumps(head) + "\n", encoding="utf-8")
    print(f"{sentiment.HEAD_FILE}: {len(rows)} sentences, {models.digest_of_file(sentiment.HEAD_FILE)}")


def trained(features: Any, labels: Any) -> dict[str, Any]:
    """The weights of one regression, as ``handlers.sentiment.Regression`` has them."""
    fitted = LogisticRegression(C=STRENGTH, max_iter=5000).fit(features, labels)
    return {"weights": np.round(fitted.coef_, DIGITS).tolist(), "bias": np.round(fitted.intercept_, DIGITS).tolist()}


def trained_with_phrases(features: Any, texts: Sequence[str], labels: Any) -> dict[str, Any]:
    """The same, with a weight for each phrase that enough of the texts have, in thousandths."""
    found = [sentiment.phrases(text) for text in texts]
    counts = collections.Counter(phrase for phrases in found for phrase in phrases)
    numbers = {phrase: at for at, phrase in enumerate(sorted(one for one, n in counts.items() if n >= MIN_TEXTS))}
    head = trained(hstack([csr_matrix(features), worded(found, numbers)]).tocsr(), labels)
    columns = features.shape[1]
    weights = np.array(head["weights"])
    thousandths = np.rint(weights[:, columns:].T * 1000).astype(int).tolist()
    phrases = {phrase: thousandths[at] for phrase, at in numbers.items() if any(thousandths[at])}
    return {"weights": weights[:, :columns].tolist(), "bias": head["bias"], "phrases": phrases}


def worded(found: Sequence[set[str]], numbers: dict[str, int]) -> Any:
    """A row of length 1 for each text, in which its phrases are alike."""
    rows = [[numbers[phrase] for phrase in sorted(phrases) if phrase in numbers] for phrases in found]
    shares = [1 / np.sqrt(len(row)) for row in rows for _ in row]
    ends = np.cumsum([0, *map(len, rows)])
    return csr_matrix((shares, [at for row in rows for at in row], ends), shape=(len(rows), len(numbers)))


if __name__ == "__main__":
    main()
