"""The language of a text: known, or not known and null; and what mark-up leaves of a text."""

from __future__ import annotations

import time

import pytest

from handlers import language, markup

LANGUAGE_OF = {
    "Speichern": "de",
    "Einstellungen speichern": "de",
    "Enregistrer les modifications": "fr",
    "Сохранить изменения": "ru",
    "저장": "ko",
    "設定を保存する": "ja",
    "Αποθήκευση": "el",
    "I would like to save the settings": "en",
    "Ich habe <b>the</b> <span lang='en' title='this is a title'>Problem</span> nicht gefunden": "de",
    "Besuchen Sie https://example.com/the/new/page/of/the/company oder schreiben Sie an the.best@example.com": "de",
    "ICH HABE DAS NICHT GESAGT": "de",
}
"""A text → its language, ISO 639-1."""


@pytest.mark.parametrize("text", LANGUAGE_OF)
def test_a_language_is_found(text: str) -> None:
    """Also of a word, in capitals, between tags and addresses."""
    assert LANGUAGE_OF[text] == language.detect(text)["code"]


@pytest.mark.parametrize("text", ["", " \n", "OK", "😀😀", "42", "https://example.com/en/index.html", "<br/>"])
def test_no_words_have_no_language(text: str) -> None:
    """Nothing is read, nothing is guessed."""
    assert {"code": None, "confidence": 0.0} == language.detect(text)


@pytest.mark.parametrize("text", ["Hello world", "Hola", "Save", "Menu", "asdf qwer"])
def test_a_doubtful_language_is_null(text: str) -> None:
    """The right one or none, and the confidence beside it says why."""
    found = language.detect(text)
    assert found["code"] in ({"Hola": "es"}.get(text, "en"), None)
    assert (found["code"] is None) == (found["confidence"] < language.MIN_CONFIDENCE)  # type: ignore[operator]


SEEN = {
    "a < b and c > d": "a < b and c > d",
    "if x <y> z": "if x <y> z",
    "R&D; AT&T": "R&D; AT&T",
    "&nosuchsign;": "&nosuchsign;",
    "one<br>two": "one\n\ntwo",
    "<p>x</p>": "\n\nx\n\n",
    "so<b>me</b>thing": "something",
    "a<script>var x = '<b>';</script>b": "ab",
    "a<!-- <p> -->b": "ab",
    "caf&eacute; &#x1F600; &lt;b&gt;": "café 😀 <b>",
}
"""A text → what a person sees of it."""


@pytest.mark.parametrize("text", SEEN)
def test_what_a_person_sees(text: str) -> None:
    """Tags go, references are signs, what only looks like mark-up stays."""
    assert SEEN[text] == markup.see(text).text


def test_places_lead_back_to_the_source() -> None:
    """Each character that stands in both has the same place."""
    source = "<p>A &amp; B of<br/>\nthe <i>new</i> house that\nstands</p>"
    for seen in (markup.see(source), markup.unwrap(source)):
        for at, sign in enumerate(seen.text):
            start, end = seen.span(at, at + 1)
            assert sign.isspace() or source[start:end] in (sign, "&amp;")


HOSTILE = {
    "spaces": " ", "lines": "a\n", "words in lines": "a b c\n", "tags": "<b>", "open tags": "<a ",
    "scripts": "<script>", "comments": "<!--", "references": "&amp;", "ampersands": "&a", "at signs": "a@",
    "letters": "a", "spaced lines": " \n",
}  # fmt: skip
"""What is repeated to 100,000 characters."""


@pytest.mark.parametrize("part", HOSTILE.values(), ids=HOSTILE)
def test_work_does_not_grow_faster_than_the_text(part: str) -> None:
    """No pattern begins anew at each character: the longest text takes less than two seconds of processor time."""
    text = part * (100_000 // len(part))
    began = time.process_time()
    markup.unwrap(text)
    language.detect(text)
    assert time.process_time() - began < 2
