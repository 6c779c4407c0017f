"""``.libraries/scripts/bin/python -m tests.quality.train_sentiment``: works out handlers/trained/sentiment.json anew.

Two multinomial logistic regressions (scikit-learn, which the set of scripts has) over the rated sentences of which no
part is for tests: over VADER's three numbers and the encoder's vector, and over VADER's alone. Takes four minutes.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from handlers import markup, models, sentiment
from tests.quality import sources
from tests.support.entry_process import ROOT

STRENGTH = 1.0
"""Of scikit-learn's default regularization."""
DIGITS = 4
ABOUT = (
    "Multinomial logistic regressions over VADER's compound, pos and neg of a sentence and, in the first, BGE's "
    "vector. Made by tests/quality/train_sentiment.py from the ratings in vaderSentiment 3.3.2 (MIT): documents whose "
    "checksum leaves them to training, {count} sentences."
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
        "with_encoder": trained(np.hstack([felt, vectors]), labels),
        "lexicon_only": trained(felt, labels),
    }
    sentiment.HEAD_FILE.write_text(json.dumps(head) + "\n", encoding="utf-8")
    print(f"{sentiment.HEAD_FILE}: {len(rows)} sentences, {models.digest_of_file(sentiment.HEAD_FILE)}")


def trained(features: Any, labels: Any) -> dict[str, Any]:
    """The weights of one regression, as ``handlers.sentiment.Regression`` has them."""
    fitted = LogisticRegression(C=STRENGTH, max_iter=5000).fit(features, labels)
    return {"weights": np.round(fitted.coef_, DIGITS).tolist(), "bias": np.round(fitted.intercept_, DIGITS).tolist()}


if __name__ == "__main__":
    main()
