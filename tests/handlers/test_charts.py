"""data_processing draws a chart of a histogram or a group where it is asked for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from handlers import jsonable
from handlers.data import charts, data_processing
from handlers.failures import Refusal
from handlers.parameters.registry import Request, decode

COUNT = [{"function": "sum", "field": "v"}]


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def process(**parameters: Any) -> Any:
    text = json.dumps(parameters).encode()
    decode("data_processing", text)
    request = Request(task_type="data_processing", parameters=msgspec.Raw(text))
    return json.loads(jsonable.encode(data_processing.run(request)))


def drawn(chart: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Its pixels: rows, columns, RGB."""
    with Image.open(Path("artifacts", chart["artifact"])) as image:
        assert (chart["width"], chart["height"]) == image.size
        return np.asarray(image.convert("RGB")).astype(int)


def group(values: dict[Any, float], **more: Any) -> dict[str, Any]:
    data = [{"name": name, "v": value} for name, value in values.items()]
    return dict(process(operation="group", data=data, group_by=["name"], aggregates=COUNT, chart=True, **more)["chart"])


def blue(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Where the first series' bars are."""
    return np.asarray(np.abs(pixels - (31, 119, 180)).max(axis=2) <= 3)


def test_bars_of_a_histogram_are_as_high_as_its_counts() -> None:
    """Twice the rows, twice the height."""
    data = [{"x": 1}] * 10 + [{"x": 9}] * 20
    answer = process(operation="histogram", data=data, field="x", bins=2, chart=True)
    heights = blue(drawn(answer["chart"])).sum(axis=0)
    middle = len(heights) // 2
    assert 2 == pytest.approx(heights[middle:].max() / heights[:middle].max(), rel=0.03)
    assert [10, 20] == [one["count"] for one in answer["bins"]]


def test_bars_of_groups_are_as_high_as_their_values() -> None:
    """In the order of the answer; a null has none."""
    columns = blue(drawn(group({"a": 30, "b": 10, "c": 20}))).sum(axis=0)
    heights = [part.max() for part in np.split(columns, np.flatnonzero(columns == 0)) if part.any()]
    assert [3, 1, 2] == [pytest.approx(height / heights[1], rel=0.05) for height in heights]


def test_many_groups_are_cut_and_the_answer_tells_it() -> None:
    """Whatever part of the rows it lists."""
    chart = group({f"group {number:03}": number for number in range(200)}, limit=1)
    assert (40, 200) == (chart["groups_drawn"], chart["groups_total"])
    assert chart["height"] > chart["width"]
    assert blue(drawn(chart)).any()


@pytest.mark.parametrize("names", [("東京", "大阪"), ("서울", "부산"), ("北京", "上海")])
def test_east_asian_labels_are_signs_and_no_boxes(names: tuple[str, str]) -> None:
    """Two names of equally many signs look different; boxes would look alike."""
    first, second = (drawn(group({name: 1.0})) for name in names)
    assert (first != second).any()


def test_labels_that_begin_alike_are_told_apart() -> None:
    """What they have in common is left out."""
    texts = [f"Department of very long and winding names {number}" for number in range(3)]
    assert ["…0", "…1", "…2"] == charts._labels(texts)
    assert all(len(label) <= charts.MAX_LABEL_CHARACTERS for label in charts._labels(["x" * 500, "y" * 500]))


def test_mathematics_in_a_label_is_text() -> None:
    """A dollar is a dollar, and broken TeX no failure."""
    drawn(group({"$x^{2$": 1.0, "\x00\n": 2.0}))


def test_a_chart_without_numbers_is_refused() -> None:
    """It would be empty."""
    with pytest.raises(Refusal) as caught:
        process(
            operation="group", data=[{"a": "x"}], group_by=["a"], chart=True,
            aggregates=[{"function": "min", "field": "a"}],
        )  # fmt: skip
    assert "number_required" == caught.value.code


def test_a_field_that_is_not_drawn_is_told() -> None:
    """Texts have no bars."""
    aggregates = [{"function": "sum", "field": "v"}, {"function": "min", "field": "a"}]
    answer = process(operation="group", data=[{"a": "x", "v": 1}], group_by=["a"], aggregates=aggregates, chart=True)
    assert (["sum_v"], 2) == (answer["chart"]["fields_drawn"], answer["chart"]["fields_total"])


def test_one_number_alone_has_a_bar() -> None:
    """Its range has no width."""
    answer = process(operation="histogram", data=[{"x": 5}], field="x", chart=True)
    assert blue(drawn(answer["chart"])).any()
