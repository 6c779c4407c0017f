"""Libraries through HTTP and on the command line: which are there, which are not, and how an operator adds one."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.config import install_libraries
from engine.config.libraries import check_set, describe_sets, digest_of, find_sets, packages_folder
from tests.support.command_line import engine
from tests.support.libraries import FOLDER
from tests.support.sources import modules
from tests.support.stack import task
from tests.unit.test_imports import imported

ENGINES = ("litestar", "asyncpg", "arq", "redis", "uvicorn", "pytest", "mypy", "pip", "engine")
WANTED = [
    "numpy", "pandas", "pyarrow", "polars", "scipy", "sklearn", "statsmodels", "matplotlib", "seaborn", "PIL",
    "openpyxl", "xlsxwriter", "requests", "httpx", "bs4", "lxml", "sympy", "networkx", "sqlalchemy", "pydantic",
    "dateutil", "yaml", "jinja2", "tabulate", "tqdm", "rich", "click", "typer", "attrs",
]  # fmt: skip
FIND = "import importlib.util\nresult = [name for name in args if importlib.util.find_spec(name) is not None]"
PLOT = """
import time
began = time.process_time()
import matplotlib.pyplot as plt
plt.plot([1, 2, 3])
plt.savefig("artifacts/plot.png")
from matplotlib import font_manager
result = sorted({font.fname.startswith("/python/site-packages/") for font in font_manager.fontManager.ttflist})
"""


def run(client: httpx.Client, script: str, args: object = None) -> dict[str, Any]:
    body = task(script)
    body["parameters"]["args"] = args
    return dict(client.post("/execute", params={"wait": 60}, json=body).json())


def test_scripts_see_their_libraries_and_none_of_the_engines(client: httpx.Client) -> None:
    """All that the default set promises, and nothing that only the engine or its tests need."""
    assert WANTED == run(client, FIND, [*WANTED, *ENGINES])["result"]


@pytest.mark.parametrize("name", ["handlers", "scripts"])
def test_the_model_of_languages_is_mapped_and_answers_as_the_packed_one(name: str) -> None:
    """Zygotes share the pages of a file; what each unpacks for itself is its own."""
    program = """
from handlers import language
texts = ["Where is the library?", "Wo ist die Bibliothek?", "图书馆在哪里", ""]
mapped = [language._identifier().rank(text) for text in texts]
maps = open("/proc/self/maps").read()
language._identifier.cache_clear()
language._mapped_model = language._unpacked_model
print([file in maps for file in ("nextmove.npy", "ptc.npy")], mapped == [language._identifier().rank(t) for t in texts])
"""
    command = [str(FOLDER / name / "bin" / "python"), "-c", program]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    assert (0, "[True, True] True\n") == (done.returncode, done.stdout), done.stderr


@pytest.mark.parametrize(
    ("folder", "name"), [("handlers", "handlers"), ("sandbox/inside", "handlers"), ("scripts", "scripts")]
)
def test_a_set_has_what_our_own_code_imports(folder: str, name: str) -> None:
    """At any place of it: what only ``.venv`` has would be found by a user."""
    packages = packages_folder(FOLDER / name)
    ours = {"handlers", "sandbox", *sys.stdlib_module_names}
    ours.add("pyarrow")  # handlers.pictures takes a further part of it where a script has loaded it
    wanted = {
        module.partition(".")[0]
        for path, tree in modules(folder)
        if path.name != "show_figures.py"  # a backend, which matplotlib loads where it is there
        for module in imported(tree, folder.replace("/", "."))
    }
    assert [] == [module for module in sorted(wanted - ours) if not any(packages.glob(f"{module}*"))]


def test_sets_are_listed_with_what_is_in_them(client: httpx.Client) -> None:
    """Name, version and summary of each; the digest stands in the policy's page and in each result, too."""
    sets = {found["name"]: found for found in client.get("/libraries").json()["sets"]}
    assert {"handlers", "scripts"} <= sets.keys()
    pandas = next(one for one in sets["scripts"]["libraries"] if one["name"] == "pandas")
    assert pandas["version"] == run(client, "import pandas\nresult = pandas.__version__")["result"]
    assert pandas["summary"]
    digest = sets["scripts"]["digest"]
    assert digest == client.get("/policies/custom_script").json()["libraries_digest"]
    assert digest == run(client, "result = 1")["libraries_digest"]


def test_a_plot_needs_no_search_for_fonts(client: httpx.Client) -> None:
    """matplotlib finds its list of fonts; nothing is denied, and no font is of the host."""
    answer = run(client, PLOT)
    assert ("ok", [True], []) == (answer["exit_reason"], answer["result"], answer["violations"])
    assert "" == answer["logs"]["stderr"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pandsa", "Is pandas meant?"),
        ("Beautifulsoup4", "beautifulsoup4"),
        ("torch", "An operator adds torch by"),
        ("cv2", "opencv-python-headless"),
    ],
)
def test_a_missing_library_is_met_with_help(client: httpx.Client, name: str, words: str) -> None:
    """The nearest names, the list of all, and how an operator adds one."""
    message = run(client, f"import {name}")["error"]["message"]
    assert message.startswith(f"No module named '{name}'. ")
    assert words in message
    assert "GET /libraries" in message


def test_other_words_of_a_script_stay_as_they_are(client: httpx.Client) -> None:
    """Only the interpreter's own message is added to."""
    answer = run(client, "raise ModuleNotFoundError('mine', name='mine')")
    assert "mine" == answer["error"]["message"]


def test_a_policy_whose_libraries_are_missing_does_not_start(tmp_path: Path) -> None:
    """The policy, the set and the fix are named."""
    (tmp_path / "body.json").write_text(json.dumps(task("result = 1")))
    done = engine("run", str(tmp_path / "body.json"), LIBRARIES_DIR=str(tmp_path / "none"))
    assert 1 == done.returncode
    for word in (
        "custom_script",
        "'scripts'",
        "make install",
        "python -m engine libraries install",
        "DISABLED_POLICIES",
    ):
        assert word in done.stderr.decode()


@pytest.fixture
def small_set(tmp_path: Path) -> Path:
    """A set of one package, as it was installed; its packages' folder."""
    packages = packages_folder(tmp_path / "sets" / "small")
    packages.mkdir(parents=True)
    source = packages_folder(FOLDER / "scripts")
    for path in ("six.py", *(entry.name for entry in source.glob("tabulate*"))):
        if (source / path).is_dir():
            shutil.copytree(source / path, packages / path)
        elif (source / path).exists():
            shutil.copy(source / path, packages)
    (packages / "six.py").unlink(missing_ok=True)
    return packages


def test_a_changed_file_is_found(small_set: Path) -> None:
    """Against the digest of its package; a file of no package, and one that is gone, too."""
    assert [] == check_set(small_set)
    before = digest_of(small_set)
    changed = next(small_set.glob("tabulate/__init__.py"))
    changed.write_text("import os\n")
    (small_set / "sitecustomize.py").write_text("")
    faults = check_set(small_set)
    assert 2 == len(faults)
    assert "tabulate/__init__.py" in faults[0]
    assert "sitecustomize.py: belongs to no package" == faults[1]
    assert before == digest_of(small_set)  # of what was installed: `check` holds the files against it
    changed.unlink()
    assert "No such file" in check_set(small_set)[0]


def test_check_says_whether_every_file_is_right(small_set: Path) -> None:
    """Exit code 0, and 1 after a change."""
    folder = str(small_set.parents[3])
    done = engine("libraries", "check", LIBRARIES_DIR=folder)
    assert (0, b"small: every file is right\n") == (done.returncode, done.stdout)
    (small_set / "tabulate" / "__init__.py").write_text("")
    assert 1 == engine("libraries", "check", LIBRARIES_DIR=folder).returncode


def test_sets_have_the_same_digest_wherever_they_are(small_set: Path, tmp_path: Path) -> None:
    """A copy is the same set."""
    copy = tmp_path / "copies" / "small"
    shutil.copytree(small_set.parents[2], copy)
    assert find_sets(small_set.parents[3])["small"].digest == find_sets(copy.parent)["small"].digest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("../x",), "a set is named by small letters"),
        (("mine", "--base", "nothing"), "delivered are handlers, scripts"),
    ],
)
def test_a_set_that_cannot_be_is_refused(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """In a sentence, before anything is made."""
    name, *options = arguments
    (tmp_path / "own.txt").write_text("tabulate\n")
    done = engine("libraries", "add", name, str(tmp_path / "own.txt"), *options, LIBRARIES_DIR=str(tmp_path / "sets"))
    assert 1 == done.returncode
    assert said in done.stderr.decode()
    assert not (tmp_path / "sets").exists()


def make_wheel(folder: Path, name: str) -> str:
    """A package of one module, whose ``VALUE`` is its name; its line in a lock."""
    folder.mkdir(exist_ok=True)
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": f"VALUE = {name!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: Says {name}.\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()) for path, text in files.items()}
    record = [f"{path},sha256={digest.decode().rstrip('=')},1\n" for path, digest in digests.items()]
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


@pytest.fixture
def delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose set ``scripts`` has one package, from a folder of wheels, not an index; the sets' folder."""
    lock = tmp_path / "requirements-scripts.lock"
    lock.write_text(make_wheel(tmp_path / "wheels", "eins"))
    monkeypatch.setattr(install_libraries, "LOCKS", {"scripts": lock})
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    install_libraries.install(tmp_path / "sets", print)
    return tmp_path / "sets"


def said_by(packages: Path, name: str) -> str:
    python = packages.parents[2] / "bin" / "python"
    command = [str(python), "-I", "-c", f"import {name}; print({name}.VALUE)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_set_of_an_operator_has_the_delivered_packages_and_its_own(delivered: Path, tmp_path: Path) -> None:
    """In a set of its own the delivered one stays as it is; every file is right, and compiled."""
    make_wheel(tmp_path / "wheels", "zwei")
    (tmp_path / "own.txt").write_text("zwei\n")
    before = find_sets(delivered)["scripts"].digest
    install_libraries.add(delivered, "mine", tmp_path / "own.txt", "scripts", print)
    sets = find_sets(delivered)
    assert {"scripts", "mine"} == sets.keys()
    assert before == sets["scripts"].digest != sets["mine"].digest
    assert ["eins", "zwei"] == [said_by(sets["mine"].folder, name) for name in ("eins", "zwei")]
    assert [] == check_set(sets["mine"].folder)
    assert 2 == len(list(sets["mine"].folder.glob("__pycache__/*.pyc")))
    assert [("eins", "1.0", "Says eins."), ("zwei", "1.0", "Says zwei.")] == [
        (one.name, one.version, one.summary) for one in describe_sets(delivered)[0].libraries
    ]


def test_what_an_operator_adds_to_a_delivered_set_stays_when_it_is_made_anew(delivered: Path, tmp_path: Path) -> None:
    """A new lock, and the operator's package is still there."""
    make_wheel(tmp_path / "wheels", "zwei")
    (tmp_path / "own.txt").write_text("zwei\n")
    install_libraries.add(delivered, "scripts", tmp_path / "own.txt", "scripts", print)
    lock = tmp_path / "requirements-scripts.lock"
    lock.write_text(lock.read_text() + make_wheel(tmp_path / "wheels", "drei"))
    install_libraries.install(delivered, print)
    packages = find_sets(delivered)["scripts"].folder
    assert ["eins", "zwei", "drei"] == [said_by(packages, name) for name in ("eins", "zwei", "drei")]


def test_a_package_that_cannot_be_installed_leaves_everything_as_it_was(delivered: Path, tmp_path: Path) -> None:
    """pip's own words; no half set, and no other version of what is delivered."""
    (tmp_path / "own.txt").write_text("eins==2.0\n")
    before = sorted(path.name for path in delivered.iterdir())
    with pytest.raises(install_libraries.LibrariesError, match="eins"):
        install_libraries.add(delivered, "mine", tmp_path / "own.txt", "scripts", print)
    assert before == sorted(path.name for path in delivered.iterdir())


def test_a_file_that_sets_have_in_common_is_kept_once(tmp_path: Path) -> None:
    """The same bytes at the same place, readable by the same: one file, on disk and in memory. All else stays apart."""
    texts = {
        "lib/same.so": ("same", "same"),
        "lib/other.so": ("one", "two"),
        "lib/closed.so": ("same", "same"),
        "bin/python": ("same", "same"),
    }
    for number, name in enumerate(("handlers", "scripts")):
        for place, both in texts.items():
            path = tmp_path / name / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(both[number])
    (tmp_path / "scripts" / "lib" / "closed.so").chmod(0o600)
    assert (1, 0) == (install_libraries.share_files(tmp_path), install_libraries.share_files(tmp_path))
    one, other = ({place: tmp_path / name / place for place in texts} for name in ("handlers", "scripts"))
    assert ["lib/same.so"] == [place for place in texts if one[place].samefile(other[place])]
    assert texts == {place: (one[place].read_text(), other[place].read_text()) for place in texts}
    assert 0o600 == stat.S_IMODE(other["lib/closed.so"].stat().st_mode)


def test_another_checkouts_sets_are_not_written_to(delivered: Path, tmp_path: Path) -> None:
    """Through a link what is right is used; what differs is named, with both fixes."""
    (tmp_path / "link").symlink_to(delivered)
    install_libraries.install(tmp_path / "link", print)
    lock = tmp_path / "requirements-scripts.lock"
    lock.write_text(lock.read_text() + make_wheel(tmp_path / "wheels", "drei"))
    with pytest.raises(install_libraries.LibrariesError, match=r"is a link to .*scripts.*make install"):
        install_libraries.install(tmp_path / "link", print)
