"""ml_inference: what each model type answers, how well on labelled texts, and models of an operator's own.

The labelled texts in ``labelled/`` were written for these tests; no model was chosen or set by them. tests/quality has
what the models are worth on texts that others wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from handlers import jsonable, ml_inference, models, text_analysis, zero_shot
from handlers.failures import Refusal
from handlers.parameters.registry import Request
from tests.support import tiny_model
from tests.support.entry_process import ROOT

LABELLED = Path(__file__).with_name("labelled")


@pytest.fixture(scope="module", autouse=True)
def gathered() -> Iterator[Path]:
    """The folder that ``make models`` fills."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELS_DIR", str(ROOT / "models"))
        assert (ROOT / "models" / models.ENCODER / "model.onnx").is_file(), "run `make models` first"
        yield ROOT / "models"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of an operator's with one classifier in it."""
    monkeypatch.setenv("MODELS_DIR", str(tmp_path))
    models._classifier.cache_clear()
    tiny_model.write(tmp_path / "moods")
    yield tmp_path
    models._classifier.cache_clear()


def ask(model_type: str, input_data: Any, **more: Any) -> Any:
    """The whole answer as JSON has it."""
    raw = msgspec.Raw(json.dumps({"model_type": model_type, "input_data": input_data, **more}).encode())
    return json.loads(jsonable.encode(ml_inference.run(Request(task_type="ml_inference", parameters=raw))))


def answer(model_type: str, input_data: Any, **more: Any) -> Any:
    """The answer about the text, or about each text."""
    return ask(model_type, input_data, **more)[model_type]


# ---- what is answered -------------------------------------------------------------------------------------------


def test_sentiment_of_the_interface_example() -> None:
    """The example of the interface feels positive; the answer has a confidence, the language, and its models."""
    found = ask("sentiment", "This product is absolutely amazing!")
    felt = found["sentiment"]
    assert ("positive", "en") == (felt["label"], felt["language"]["code"])
    assert felt["confidence"] == felt["scores"]["positive"] > 0.6
    assert felt["score"] == pytest.approx(felt["scores"]["positive"] - felt["scores"]["negative"], abs=1e-4)
    assert ["vader", "sentiment-head"] == [model["name"] for model in found["models"] if "bge" not in model["name"]]


SENTIMENT_OF = {
    "<p>I <b>hate</b> this</p>": "negative",
    "I hate this": "negative",
    "I &lt;3 this, it&#39;s great": "positive",
    "THIS IS THE WORST SERVICE EVER": "negative",
    "This is not good at all.": "negative",
    "It is not bad, I like it.": "positive",
    "\U0001f60d\U0001f60d": "positive",
    "I love it \U0001f60d!!!": "positive",
}
"""A text with mark-up, capitals, a negation or emoji → how it feels."""


@pytest.mark.parametrize("text", SENTIMENT_OF)
def test_sentiment_as_a_person_reads_it(text: str) -> None:
    """Mark-up and capitals change nothing, negations turn, emoji count."""
    assert SENTIMENT_OF[text] == answer("sentiment", text)["label"]


UNKNOWN = {
    "German": "Ich hasse dieses Produkt",
    "Russian": "Это ужасный фильм, я его ненавижу",  # noqa: RUF001  Russian
    "Chinese": "我讨厌这个产品",
    "nothing": "",
    "space": " \n",
    "no word of any language": "asdf qwer zxcv",
    "signs": "(" * 50,
}
"""Texts of which an English model knows nothing."""


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_sentiment_that_is_not_known_is_null(text: str) -> None:
    """No guess: everything but the language is null or empty."""
    found = answer("sentiment", text)
    assert {"label": None, "score": None, "confidence": None, "scores": {}} == {
        name: value for name, value in found.items() if name != "language"
    }
    assert found["language"]["code"] != "en"


@pytest.mark.parametrize("text", list(UNKNOWN.values())[:3], ids=list(UNKNOWN)[:3])
def test_other_languages_have_no_category_and_no_names(text: str) -> None:
    """The encoder and the model of names understand English only; the answer says which language it is."""
    topic, each = answer("classification", text), answer("classification", text, multi_label=True)
    names = answer("entity_extraction", text)
    assert (None, None, {}) == (topic["label"], topic["score"], topic["scores"])
    assert (None, {}, None) == (each["labels"], each["scores"], names["entities"])
    assert {topic["language"]["code"], each["language"]["code"], names["language"]["code"]} <= {"de", "ru", "zh"}


def test_a_long_text_counts_sentence_by_sentence() -> None:
    """Two good sentences and one bad one are positive, and the other way round."""
    good, bad = "I love this wonderful place.", "I hate this awful place."
    found = answer("sentiment", [f"{good} {good} {bad}", f"{bad} {good} {bad}"])
    assert ["positive", "negative"] == [item["label"] for item in found]


def test_without_the_second_encoder_the_lexicon_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the operator or the policy does not grant is not missed: the answer says what it rests on."""
    monkeypatch.setenv("MODELS_DIR", str(tmp_path))
    found = ask("sentiment", "This product is absolutely amazing!")
    assert "positive" == found["sentiment"]["label"]
    assert ["vader", "sentiment-head"] == [model["name"] for model in found["models"]]


def test_an_encoder_that_the_head_was_not_trained_over_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gathered: Path
) -> None:
    """Another model of the same name would give other numbers without a word."""
    (tmp_path / models.SENTIMENT_ENCODER).symlink_to(gathered / models.ENCODER)
    monkeypatch.setenv("MODELS_DIR", str(tmp_path))
    models._sentiment_encoder.cache_clear()
    with pytest.raises(Refusal, match=r"not the one that sentiment\.json was trained over"):
        ask("sentiment", "This product is absolutely amazing!")
    models._sentiment_encoder.cache_clear()


@pytest.mark.parametrize("model_type", ml_inference.MODEL_TYPES)
def test_an_array_is_answered_by_an_array(model_type: str) -> None:
    """Each text of an array is answered as it is alone, in its place: neighbours change nothing."""
    texts = ["I love Berlin.", "", "The parcel came two days late, and nobody in the shop could say why."]
    assert [answer(model_type, text) for text in texts] == answer(model_type, texts)
    assert [] == answer(model_type, [])


def test_scores_of_own_categories() -> None:
    """Own categories get probabilities that sum to 1, the label is the likeliest, best first."""
    found = answer("classification", "My parcel never arrived.", categories=["billing", "delivery", "product quality"])
    assert "delivery" == found["label"] == next(iter(found["scores"]))
    assert found["score"] == max(found["scores"].values())
    assert 1 == pytest.approx(sum(found["scores"].values()), abs=1e-3)


def test_default_categories() -> None:
    """Without categories of the caller's there are ten."""
    assert set(zero_shot.CATEGORIES) == set(answer("classification", "It rained.")["scores"])


def test_many_categories_are_cut_to_the_likeliest() -> None:
    """Of a hundred categories twenty are shown."""
    found = answer("classification", "The cat sleeps.", categories=[f"topic {n}" for n in range(99)] + ["cats"])
    assert (20, "cats") == (len(found["scores"]), found["label"])


def test_space_has_no_category() -> None:
    """A text without anything in it belongs nowhere."""
    found = answer("classification", [" \n", "\U0001f60d", "<br/>"])
    assert [(None, None, {})] * 3 == [(item["label"], item["score"], item["scores"]) for item in found]


def test_equal_categories_are_one() -> None:
    """Capital letters and spaces make no other category; the first spelling is answered."""
    given = ["Billing", "billing", " BILLING ", "product  quality", "delivery"]
    found = answer("classification", "My parcel never arrived.", categories=given)
    assert {"Billing", "product quality", "delivery"} == set(found["scores"])


def test_a_text_of_several_categories() -> None:
    """Each category stands for itself: two hold, none holds; the scores do not sum to 1."""
    both = answer("classification", "A football match on television", categories=["sports", "television", "cooking"],
                  multi_label=True)  # fmt: skip
    assert {"sports", "television"} == set(both["labels"])
    neither = answer("classification", "A football match on television", categories=["law", "cooking"],
                     multi_label=True)  # fmt: skip
    assert ([], {"law", "cooking"}) == (neither["labels"], set(neither["scores"]))


def test_offsets_count_characters() -> None:
    """``start`` and ``end`` cut the very name out of the text, also behind signs of four bytes."""
    text = "😀😀 é! Tim Cook flew to Paris on Monday."
    found = answer("entity_extraction", text)["entities"]
    assert {"Tim Cook": "PERSON", "Paris": "GPE", "Monday": "DATE"} == {name["text"]: name["label"] for name in found}
    assert [name["text"] for name in found] == [text[name["start"] : name["end"]] for name in found]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<p>My boss <b>Tim</b> Cook moved to <i>Paris</i>.</p>", {"Tim Cook": "Tim</b> Cook", "Paris": "Paris"}),
        ("Yesterday I talked to Tim\nCook about the new office in San\r\nFrancisco.",
         {"Tim Cook": "Tim\nCook", "San Francisco": "San\r\nFrancisco"}),
        ("He works for Johnson &amp; Johnson.", {"Johnson & Johnson": "Johnson &amp; Johnson"}),
    ],
    ids=["tags", "lines", "references"],
)  # fmt: skip
def test_names_go_through_mark_up_and_ends_of_lines(text: str, wanted: dict[str, str]) -> None:
    """``text`` is what a person reads; the place is that in the source."""
    found = {name["text"]: text[name["start"] : name["end"]] for name in answer("entity_extraction", text)["entities"]}
    assert wanted == {name: found.get(name) for name in wanted} | {}


def test_lines_of_a_list_are_not_joined() -> None:
    """Short lines are items: each has its own name."""
    found = answer("entity_extraction", "Cities:\nParis\nLondon\nBerlin\n")["entities"]
    assert not [name for name in found if len(name["text"].split()) > 1]


def test_what_is_no_word_moves_no_offset() -> None:
    """A run of signs that spaCy would take minutes for is passed over, and all behind it stays where it is."""
    text = "!" * 60_000 + " Tim Cook went to Paris."
    found = answer("entity_extraction", text)["entities"]
    assert ["Tim Cook", "Paris"] == [text[name["start"] : name["end"]] for name in found]


def test_text_analysis_counts() -> None:
    """Counts are those that one can check by hand."""
    found = answer("text_analysis", "The cat sat on the mat. It was happy!\n\nThen the dog came home.")
    expected = {
        "characters": 62, "words": 14, "distinct_words": 12, "sentences": 3, "paragraphs": 2,
        "words_per_sentence": 4.67, "characters_per_word": 3.21,
    }  # fmt: skip
    assert expected == {name: found[name] for name in expected}
    assert "en" == found["language"]["code"]


@pytest.mark.parametrize("blank", ["\r\n\r\n", "\n \t\n", "\r\r", "\n\n\n", "</p><p>"])
def test_paragraphs_end_at_a_blank_line(blank: str) -> None:
    """However it is written."""
    text = f"One two.{blank}Three four.{blank}Five six."
    assert 3 == answer("text_analysis", text)["paragraphs"]


def test_mark_up_is_no_word() -> None:
    """Words are those that a person reads, characters those that were sent."""
    found = answer("text_analysis", "<p>To <b>be</b> or not</p>")
    assert (4, 26) == (found["words"], found["characters"])


def test_readability_is_that_of_the_formulas() -> None:
    """Ten words of thirteen syllables in two sentences: worked out by hand from the published formulas."""
    found = text_analysis.readability(["the", "cat", "sat", "on", "a", "happy", "little", "table", "by", "it"], 2)
    expected = {
        "flesch_reading_ease": round(206.835 - 1.015 * 5 - 84.6 * 1.3, 1),
        "flesch_kincaid_grade": round(0.39 * 5 + 11.8 * 1.3 - 15.59, 1),
        "gunning_fog": 2.0,
        "automated_readability_index": round(4.71 * 3.2 + 0.5 * 5 - 21.43, 1),
        "coleman_liau_index": round(5.88 * 3.2 - 29.6 / 5 - 15.8, 1),
    }
    assert expected == found


def test_simple_prose_is_easier_than_legal_prose() -> None:
    """The scores order texts as a reader would."""
    simple = "The dog ran. The cat sat. We had fun in the sun. Then we went home."
    legal = (
        "Notwithstanding any provision to the contrary, the undersigned irrevocably acknowledges the applicability of "
        "supplementary contractual obligations arising from subsequent legislative amendments."
    )
    easy, hard = (found["readability"] for found in answer("text_analysis", [simple, legal]))
    assert easy["flesch_reading_ease"] > 90
    assert easy["flesch_kincaid_grade"] < 4
    assert hard["flesch_reading_ease"] < 10
    assert hard["flesch_kincaid_grade"] > 15


def test_key_phrases_are_what_a_text_is_about() -> None:
    """They come from the text, none twice, and the subject is among the first."""
    text = (
        "Solar power has become one of the cheapest sources of electricity. The price of solar panels has fallen by "
        "ninety per cent. Grid operators still struggle with the variability of solar power, for demand peaks in the "
        "evening. Critics point out that the mining of lithium harms local water supplies."
    )
    found = answer("text_analysis", text)["key_phrases"]
    assert ("Solar power", 2) == (found[0]["text"], found[0]["count"])
    assert "local water supplies" in [phrase["text"] for phrase in found]
    assert all(phrase["text"] in text for phrase in found)
    assert len(found) == len({phrase["text"].lower() for phrase in found})


def test_other_languages_are_counted_only() -> None:
    """Formulas and phrases are for English; of another language the answer says null, and names one model."""
    found = ask("text_analysis", "Der schnelle braune Fuchs springt über den faulen Hund, und niemand sieht es.")
    analysis = found["text_analysis"]
    assert ("de", None, None) == (analysis["language"]["code"], analysis["readability"], analysis["key_phrases"])
    assert (13, ["py3langid"]) == (analysis["words"], [model["name"] for model in found["models"]])


def test_digests_are_those_of_the_files(gathered: Path) -> None:
    """The digest of the encoder is that of its file, so that an answer can be traced to it."""
    (used,) = ask("classification", "x")["models"]
    content = (gathered / models.ENCODER / "model.onnx").read_bytes()
    assert {"name": models.ENCODER, "digest": "sha256:" + hashlib.sha256(content).hexdigest()} == used


def test_digest_of_a_folder_is_that_of_sha256sum(tmp_path: Path) -> None:
    """It can be had with the shell."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_text("1")
    (tmp_path / "a").write_text("2")
    shell = "find . -type f | LC_ALL=C sort | sed 's|^./||' | xargs sha256sum | sha256sum"
    printed = subprocess.run(shell, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "sha256:" + printed.split()[0] == models.digest_of_folder(tmp_path)


@pytest.mark.parametrize("model_type", ml_inference.MODEL_TYPES)
def test_the_longest_text_is_answered(model_type: str) -> None:
    """100,000 characters of prose, and as many of nothing but one sign."""
    prose = ("Tim Cook said that the new office in Berlin would open on Monday, and nobody believed him. " * 1200)[
        :100_000
    ]
    assert 2 == len(answer(model_type, [prose, "(" * 100_000]))


def test_windows_are_spread_over_a_long_text() -> None:
    """The first, the last and those between, never more than are allowed."""
    assert [0, 3, 6, 9] == models.spread(range(10), 4)
    assert [0, 1] == models.spread(range(2), 3)


# ---- how well ---------------------------------------------------------------------------------------------------


def labelled(name: str) -> list[tuple[str, str]]:
    """(label, text) of each line."""
    lines = (LABELLED / name).read_text(encoding="utf-8").splitlines()
    return [(label, text) for label, text in (line.split("\t") for line in lines)]


def share(right: int, total: int, about: str, capsys: pytest.CaptureFixture[str]) -> float:
    """Which share is right; printed beside the test, too."""
    with capsys.disabled():
        print(f"\n    {about}: {right} of {total} right ({right / total:.1%})", end=" ")
    return right / total


@pytest.mark.parametrize("own_categories", [True, False], ids=["own", "default"])
def test_quality_of_classification(capsys: pytest.CaptureFixture[str], own_categories: bool) -> None:
    """Of 50 texts about five subjects at least 90 % are right, and 80 % where ten categories are to choose from."""
    rows = labelled("classification.tsv")
    categories = {"categories": list(dict.fromkeys(label for label, _ in rows))} if own_categories else {}
    found = [item["label"] for item in answer("classification", [text for _, text in rows], **categories)]
    right = sum(label == said for (label, _), said in zip(rows, found, strict=True))
    assert (50, 5) == (len(rows), len({label for label, _ in rows}))
    about = f"classification, zero-shot, {'5 own' if own_categories else '10 default'} categories"
    assert share(right, len(rows), about, capsys) >= (0.9 if own_categories else 0.8)


def test_quality_of_entities(capsys: pytest.CaptureFixture[str]) -> None:
    """Over 35 sentences the F1 of names with label and exact place is at least 0.87."""
    sentences = (LABELLED / "entities.txt").read_text(encoding="utf-8").splitlines()
    texts, wanted = zip(*(marked(sentence) for sentence in sentences), strict=True)
    found = [
        {(name["start"], name["end"], name["label"]) for name in item["entities"] or ()}
        for item in answer("entity_extraction", list(texts))
    ]
    right = sum(len(names & said) for names, said in zip(wanted, found, strict=True))
    named, said = sum(map(len, wanted)), sum(map(len, found))
    f1 = 2 * right / (named + said)
    with capsys.disabled():
        print(f"\n    entities, en_core_web_sm: {named} names in {len(sentences)} sentences, F1 {f1:.3f}", end=" ")
        print(f"(precision {right / said:.3f}, recall {right / named:.3f})", end=" ")
    assert (35, 110) == (len(sentences), named)
    assert f1 >= 0.87


def marked(sentence: str) -> tuple[str, set[tuple[int, int, str]]]:
    """``[Tim Cook|PERSON] left`` → its text, and (start, end, label) of its names."""
    text, names = "", set()
    for name, label, rest in re.findall(r"\[([^|\]]+)\|(\w+)\]|([^\[]+)", sentence):
        if name:
            names.add((len(text), len(text) + len(name), label))
        text += name or rest
    return text, names


# ---- models of an operator's own ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["sentiment", "classification"])
def test_an_own_model_is_asked_by_its_name(own: Path, model_type: str) -> None:
    """Its labels are the answer's, its probabilities sum to 1, and its digest is that of its file."""
    found = ask(model_type, ["good day", "bad bad", "a day"], model="moods")
    assert ["happy", "unhappy"] == [item["label"] for item in found[model_type][:2]]
    assert {"happy": 0.5, "unhappy": 0.5} == found[model_type][2]["scores"]
    digest = "sha256:" + hashlib.sha256((own / "moods" / "model.onnx").read_bytes()).hexdigest()
    assert [{"name": "moods", "digest": digest}] == found["models"]


def test_an_own_model_reads_a_long_text_in_windows(own: Path) -> None:
    """Beyond its longest window the means over several count: the end of a text matters as the start does."""
    found = answer("sentiment", "good " * 8 + "bad " * 8, model="moods")
    assert {"happy": 0.5, "unhappy": 0.5} == found["scores"]


def test_independent_labels(own: Path) -> None:
    """A multi-label model gives each label a probability of its own."""
    path = own / "moods" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "problem_type": "multi_label_classification"}))
    assert {"happy": 0.982, "unhappy": 0.018} == answer("sentiment", "good", model="moods")["scores"]
    assert {"happy": 0.5, "unhappy": 0.5} == answer("sentiment", "day", model="moods")["scores"]


def refusal(**parameters: Any) -> tuple[str, str]:
    """Code and sentence of a refusal."""
    with pytest.raises(Refusal) as raised:
        ask("sentiment", "good", **parameters)
    return raised.value.code, str(raised.value)


def test_an_unknown_model_is_refused_with_those_that_there_are(own: Path) -> None:
    """The sentence lists what could have been asked for; the encoder is no classifier, and half a model is none."""
    (own / "half").mkdir()
    (own / "half" / "model.onnx").write_bytes(b"")
    assert ("unknown_model", "No model 'half'; available: moods.") == refusal(model="half")


def test_no_model_at_all_is_said(own: Path) -> None:
    """Where the operator has put none, the sentence says where they would go."""
    shutil.rmtree(own / "moods")
    code, sentence = refusal(model="moods")
    assert "unknown_model" == code
    assert "none is available" in sentence


@pytest.mark.parametrize("name", ["../moods", "..", ".", "", "a/b", "/etc", "moods\n", "a\\b", "é", "x" * 101])
def test_a_name_that_is_none_reaches_no_file(own: Path, name: str) -> None:
    """The loader refuses a name that could leave the folder before it looks for anything."""
    with pytest.raises(msgspec.ValidationError, match=r"\$\.model"):
        ask("sentiment", "good", model=name)


BROKEN = {
    "no onnx": ("model.onnx", b"x"),
    "no tokenizer": ("tokenizer.json", b"{}"),
    "no configuration": ("config.json", b"[]"),
    "labels with a gap": ("config.json", b'{"id2label": {"0": "a", "2": "b"}}'),
    "one label too many": ("config.json", b'{"id2label": {"0": "a", "1": "b", "2": "c"}}'),
    "another input": ("model.onnx", tiny_model.onnx_bytes(other_input="pixel_values")),
    "logits that are none": ("model.onnx", tiny_model.onnx_bytes(((float("nan"),) * 2,) * 3)),
    "words that it does not know": ("model.onnx", tiny_model.onnx_bytes(((0.0, 0.0),))),
}


@pytest.mark.parametrize(("file", "content"), BROKEN.values(), ids=BROKEN)
def test_a_broken_model_is_refused(own: Path, file: str, content: bytes) -> None:
    """Whatever is wrong with a model's files, the answer is a refusal that names the model."""
    (own / "moods" / file).write_bytes(content)
    code, sentence = refusal(model="moods")
    assert "unusable_model" == code
    assert sentence.startswith("The model moods cannot be used: ")


def test_a_broken_model_keeps_no_zygote_from_starting(own: Path) -> None:
    """A rehearsal loads the small models, and leaves a broken one to the task that asks for it."""
    tiny_model.write(own / "works")
    (own / "moods" / "model.onnx").write_bytes(b"x")
    models.preload_classifiers()
    assert 1 == models._classifier.cache_info().currsize


def test_large_models_are_loaded_when_they_are_asked_for(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zygote loads few models beforehand, because every run of the policy carries them."""
    monkeypatch.setattr(models, "PRELOADED_MIB", 0)
    models.preload_classifiers()
    assert 0 == models._classifier.cache_info().currsize


def test_a_missing_encoder_is_refused_with_the_fix(tmp_path: Path) -> None:
    """Outside of a sandbox nobody has checked the folder yet."""
    with pytest.raises(Refusal, match="run `make models`") as raised:
        models.Encoder(tmp_path / models.ENCODER)
    assert "model_missing" == raised.value.code


# ---- the zygote -------------------------------------------------------------------------------------------------

FORK = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from handlers import entry
loaded = {"onnxruntime", "spacy"} & set(sys.modules)
entry.find_hook("rehearse", "ml_inference")()
threads = len(os.listdir("/proc/self/task"))
requests = [
    json.dumps({"task_type": "ml_inference", "parameters": {"model_type": model_type, "input_data": "I love Berlin."}})
    for model_type in ("sentiment", "classification", "entity_extraction", "text_analysis")
]
failed = 0
for number in range(8):
    pid = os.fork()
    if pid == 0:
        answers = [entry.main(request.encode())[0] for request in requests[number % 4 :]]
        os._exit(0 if set(answers) == {"result"} else 1)
    failed += os.waitpid(pid, 0)[1] != 0
print(json.dumps([sorted(loaded), threads, failed]))
"""


def test_models_survive_a_fork(gathered: Path) -> None:
    """An import loads no model library, a rehearsal leaves one thread, and every fork after it answers."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MODELS_DIR": str(gathered)}
    command = [sys.executable, "-I", "-c", FORK, str(ROOT)]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=100)
    assert [[], 1, 0] == json.loads(done.stdout)
    assert b"" == done.stderr


# ---- weights that are mapped ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [models.Encoder, models.FirstTokenEncoder])
def test_a_mapped_model_answers_as_the_model_itself(
    kind: type[models.Encoder | models.FirstTokenEncoder], gathered: Path, tmp_path: Path
) -> None:
    """``make models`` has made the form; its vectors are those of the file itself, to five digits."""
    place = gathered / (models.ENCODER if kind is models.Encoder else models.SENTIMENT_ENCODER)
    assert models.mapped_form(place / "model.onnx").is_file(), "run `make models` first"
    for name in models.FILES:
        (tmp_path / name).symlink_to(place / name)
    texts = ["Tim Cook opened an office in Berlin.", "no", "It is late. " * 300]
    mapped, itself = kind(place), kind(tmp_path)
    weights = models.mapped_form(place / "model.onnx").with_name("weights").resolve()
    assert str(weights) in Path("/proc/self/maps").read_text()
    assert mapped.used.digest == itself.used.digest
    for text in texts:
        assert float(abs(mapped.embed(text) - itself.embed(text)).max()) < 1e-5


def test_a_mapped_form_is_of_one_file(tmp_path: Path) -> None:
    """It is made once, and anew when the model is another; no form of another one is ever used."""
    place = tiny_model.write(tmp_path / "moods")
    file = place / "model.onnx"
    assert (True, False) == (models.make_mapped_form(file), models.make_mapped_form(file))
    assert "happy" == best_of(models.Classifier(place).scores("good"))
    file.write_bytes(tiny_model.onnx_bytes(tuple(row[::-1] for row in tiny_model.WEIGHTS)))
    models.digest_of_file.cache_clear()
    assert "unhappy" == best_of(models.Classifier(place).scores("good"))
    assert models.make_mapped_form(file)
    assert "unhappy" == best_of(models.Classifier(place).scores("good"))
    assert [models.mapped_form(file).parent] == list((place / models.MAPPED).iterdir())


def test_no_mapped_form_is_made_of_what_is_no_model(tmp_path: Path) -> None:
    """The refusal names the folder."""
    place = tiny_model.write(tmp_path / "moods")
    (place / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(Refusal, match="moods"):
        models.make_mapped_form(place / "model.onnx")
    assert {*models.CLASSIFIER_FILES} == {path.name for path in place.iterdir()}


def best_of(scores: dict[str, float]) -> str:
    """The label with the highest score."""
    return max(scores, key=lambda label: scores[label])
