"""Pictures and tables that are a script's result: a person finds them as artifacts, a program finds them named."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from PIL import Image

from tests.support.entry_process import Entry


def run(entry: Entry, script: str) -> tuple[Any, dict[str, bytes]]:
    """The result of a script, and the artifacts that are there when its answer has been made."""
    answer = entry.run(script)
    assert "result" == answer.kind, answer
    return answer.value, answer.files


def image(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_an_image_as_result_is_a_png(entry: Entry) -> None:
    """Its pixels are those of the image."""
    value, files = run(entry, "from PIL import Image\nresult = Image.new('RGB', (3, 2), (9, 8, 7))")
    assert {"artifact": "result.png", "media_type": "image/png", "width": 3, "height": 2} == value
    assert ["result.png"] == list(files)
    assert (9, 8, 7) == image(files["result.png"]).getpixel((2, 1))


def test_images_inside_a_result_are_numbered(entry: Entry) -> None:
    """The same image is kept once, however often it is named."""
    script = (
        "from PIL import Image\na, b = Image.new('L', (1, 1)), Image.new('L', (2, 2))\nresult = {'x': [a, b], 'y': a}"
    )
    value, files = run(entry, script)
    assert ["image-1.png", "image-2.png", "image-1.png"] == [one["artifact"] for one in (*value["x"], value["y"])]
    assert ["image-1.png", "image-2.png"] == list(files)


@pytest.mark.parametrize(
    ("mode", "colour", "back"),
    [
        ("1", 255, 255), ("L", 7, 7), ("LA", (7, 8), (7, 8)), ("I;16", 60_000, 60_000), ("I", 100_000, 100_000),
        ("F", -1.5, -1.5), ("RGBA", (1, 2, 3, 4), (1, 2, 3, 4)), ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (255, 128, 128), (255, 255, 255)), ("HSV", (0, 0, 255), (255, 255, 255)),
    ],
)  # fmt: skip
def test_every_mode_of_an_image_is_kept(entry: Entry, mode: str, colour: Any, back: Any) -> None:
    """As it is where the format has it, in the same colours elsewhere."""
    value, files = run(entry, f"from PIL import Image\nresult = Image.new({mode!r}, (2, 2), {colour!r})")
    assert back == image(files[value["artifact"]]).getpixel((1, 1))


def test_every_frame_of_an_image_is_kept(entry: Entry) -> None:
    """An animation stays one."""
    script = """
from PIL import Image
frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue", "lime")]
frames[0].save("a.gif", save_all=True, append_images=frames[1:])
result = Image.open("a.gif")
"""
    value, files = run(entry, script)
    assert 3 == image(files[value["artifact"]]).n_frames  # type: ignore[attr-defined]


TABLES = {
    "plain": ("pd.DataFrame({'a': [1, 2], 'b': ['x', 'é,\"']})", [["a", "b"], ["1", "x"], ["2", 'é,"']]),
    "labels": ("pd.DataFrame({'a': [1, 2]}, index=['x', 'y'])", [["", "a"], ["x", "1"], ["y", "2"]]),
    "years": ("pd.DataFrame({'a': [1, 2]}, index=[2020, 2021])", [["", "a"], ["2020", "1"], ["2021", "2"]]),
}


@pytest.mark.parametrize(("frame", "rows"), TABLES.values(), ids=TABLES)
def test_a_table_as_result_is_a_csv_beside_its_json(entry: Entry, frame: str, rows: list[list[str]]) -> None:
    """With the labels that its JSON has."""
    value, files = run(entry, f"import pandas as pd\nresult = {frame}")
    assert len(value) == len(rows) - 1
    assert rows == list(csv.reader(io.StringIO(files["result.csv"].decode())))


def test_a_file_of_the_script_is_not_overwritten(entry: Entry) -> None:
    """What we keep gets another name."""
    script = (
        "import os, pandas as pd\nos.makedirs('artifacts')\nopen('artifacts/result.csv', 'w').write('mine')\n"
        "result = pd.DataFrame({'a': [1]})"
    )
    _, files = run(entry, script)
    assert {"result.csv": b"mine", "result-2.csv": b"a\n1\n"} == files


def test_pictures_are_kept_where_the_run_began(entry: Entry) -> None:
    """A script that changes its working directory loses none."""
    script = "import os\nfrom PIL import Image\nos.mkdir('d'); os.chdir('d')\nresult = Image.new('L', (1, 1))"
    _, files = run(entry, script)
    assert ["result.png"] == list(files)


def test_a_picture_that_cannot_be_kept_is_an_error(entry: Entry) -> None:
    """Never a name without a file."""
    script = "from PIL import Image\nopen('artifacts', 'w').close()\nresult = Image.new('L', (1, 1))"
    answer = entry.run(script)
    assert ("error", "FileExistsError") == (answer.kind, answer.value["type"])


def test_other_results_leave_nothing(entry: Entry) -> None:
    """A list of numbers is no table."""
    assert ([1], {}) == run(entry, "import pandas\nresult = [1]")
