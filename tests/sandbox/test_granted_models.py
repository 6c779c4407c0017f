"""ml_inference through the real sandbox: every model type, ready children, models that are read and never written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandbox import ExitReason, Host, HostError, Policy, Result, Template, load_policies
from tests.support import tiny_model
from tests.support.remote_worker import Remote, worker
from tests.support.synchronous import BUSY, Sandbox, value_of

ROOT = Path(__file__).resolve().parents[2]
TEXT = "Tim Cook opened a lovely new office in Berlin on Monday."
MODEL_TYPES = ("sentiment", "classification", "entity_extraction", "text_analysis")


@pytest.fixture(scope="module")
def policies() -> dict[str, Policy]:
    """As they are delivered."""
    return load_policies(ROOT / "policies")


@pytest.fixture(scope="module")
def with_own_model(template: Template) -> Iterator[Template]:
    """The same models, and one of an operator's."""
    folder = Path(tempfile.mkdtemp(prefix="models-"))
    folder.chmod(0o755)
    shutil.copytree(template.places["models"], folder, dirs_exist_ok=True)
    tiny_model.write(folder / "moods")
    yield msgspec.structs.replace(template, places={**template.places, "models": folder})
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def asked(policies: dict[str, Policy], host: Host, with_own_model: Template) -> Iterator[Sandbox]:
    """A pool of the task type."""
    box = Sandbox(policies["ml_inference"], host, with_own_model)
    yield box
    box.close()


@pytest.fixture(scope="module")
def scripted(policies: dict[str, Policy], host: Host, template: Template) -> Iterator[Sandbox]:
    """A pool of scripts that may read models."""
    box = Sandbox(policies["custom_script_ml"], host, template, ready=1)
    yield box
    box.close()


@pytest.fixture(scope="module")
def bare() -> Iterator[Remote]:
    """A pool of the task type on a host that refuses namespaces."""
    with worker(refused="namespaces", isolation="auto") as remote:
        assert "started" == remote.start(policy="ml_inference", ready=1)
        yield remote


def ask(box: Sandbox, **parameters: Any) -> Result:
    """Run one task of the type."""
    request = json.dumps({"task_type": "ml_inference", "parameters": parameters}).encode()
    return box.do(box.pool.run(request))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_each_model_type_answers_and_meets_no_denied_call(asked: Sandbox, model_type: str) -> None:
    """Models are asked, natively and in threads of none, within the calls that every run has."""
    result = ask(asked, model_type=model_type, input_data=[TEXT, ""])
    assert (ExitReason.OK, ()) == (result.exit_reason, result.violations)
    assert 2 == len(value_of(result)[model_type])
    assert value_of(result)["models"]
    assert ("", "") == (result.logs.stdout, result.logs.stderr)


LOADED = """
from handlers import english, language, models, sentiment
loaders = models.encoder, models._classifier, english.model, language._identifier, sentiment.analyzer
result = [loader.cache_info().currsize for loader in loaders]
"""


def test_a_child_has_every_model_in_memory_before_its_request(asked: Sandbox) -> None:
    """The zygote has loaded them, the operator's small one too: a run inherits, and loads nothing."""
    assert [1, 1, 1, 1, 1] == value_of(asked.run(LOADED))


def test_an_own_model_is_asked(asked: Sandbox, with_own_model: Template) -> None:
    """A classifier of the operator's answers by its own labels and its own digest."""
    found = value_of(ask(asked, model_type="sentiment", model="moods", input_data=["good", "bad"]))
    content = (with_own_model.places["models"] / "moods" / "model.onnx").read_bytes()
    assert ["happy", "unhappy"] == [item["label"] for item in found["sentiment"]]
    assert [{"name": "moods", "digest": "sha256:" + hashlib.sha256(content).hexdigest()}] == found["models"]


def test_a_model_that_comes_later_is_asked(asked: Sandbox, with_own_model: Template) -> None:
    """The folder is shown, not copied: a new model needs no new start."""
    tiny_model.write(with_own_model.places["models"] / "later")
    found = value_of(ask(asked, model_type="classification", model="later", input_data="bad"))
    assert "unhappy" == found["classification"]["label"]


def test_an_unknown_model_is_a_refusal(asked: Sandbox) -> None:
    """With its code, and the names that there are."""
    result = ask(asked, model_type="sentiment", model="nope", input_data="good")
    assert result.error is not None
    assert (ExitReason.ERROR, "unknown_model") == (result.exit_reason, result.error.code)
    assert "moods" in result.error.message


def test_no_thread_is_started(asked: Sandbox) -> None:
    """Not by the zygote, which could not fork, and not by a run, which has to share the processor."""
    _, zygote = asked.zygote_pids()
    assert 1 == len(os.listdir(f"/proc/{zygote}/task"))
    script = "from handlers import zero_shot\nwhile True: zero_shot.classify('Berlin is lovely. ' * 50)\n"
    threads, _ = asked.while_running(BUSY + script, lambda pid: len(os.listdir(f"/proc/{pid}/task")), then="cancel")
    assert 1 == threads


def test_a_thousand_texts_are_one_task(asked: Sandbox) -> None:
    """The most that a task may hold fits into the policy's memory and result."""
    texts = [f"Parcel {number} from Berlin was late, and I am not happy at all." for number in range(1000)]
    for model_type in ("sentiment", "entity_extraction"):
        result = ask(asked, model_type=model_type, input_data=texts)
        assert (ExitReason.OK, 1000) == (result.exit_reason, len(value_of(result)[model_type]))


WRITES = """
import os
folder, errors = os.environ['MODELS_DIR'], {}
def attempt(name, act):
    try: act()
    except OSError as error: errors[name] = error.strerror
    else: errors[name] = 'done'
model = folder + '/all-MiniLM-L6-v2-int8/model.onnx'
attempt('write', lambda: open(model, 'r+b'))
attempt('truncate', lambda: os.truncate(model, 0))
attempt('new', lambda: open(folder + '/new', 'w'))
attempt('remove', lambda: os.unlink(model))
attempt('out', lambda: open(folder + '/../etc/shadow'))
result = [open(model, 'rb').read(4).hex(), errors]
"""


@pytest.mark.privilege("the files may be the run's own user's")
def test_models_are_read_and_never_written(
    policies: dict[str, Policy], make_box: Callable[..., Sandbox], template: Template
) -> None:
    """A script of the policy may read each byte, and change none. Loaded beforehand is none of them, for speed."""
    scripted = make_box(msgspec.structs.replace(policies["custom_script_ml"], preload=("handlers.custom_script",)))
    path = template.places["models"] / "all-MiniLM-L6-v2-int8" / "model.onnx"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    head, errors = value_of(scripted.run(WRITES))
    assert path.read_bytes()[:4].hex() == head
    assert {"write", "truncate", "new", "remove", "out"} == set(errors)
    assert "done" not in errors.values()
    assert before == hashlib.sha256(path.read_bytes()).hexdigest()


SHARED_PAGES = """
import ctypes, errno, mmap
from handlers import language, models
libc = ctypes.CDLL(None, use_errno=True)
def make_writable(address):
    page = ctypes.c_void_p(address & ~(mmap.PAGESIZE - 1))
    if libc.mprotect(page, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_WRITE) == 0:
        return 'done'
    return errno.errorcode[ctypes.get_errno()]
own = mmap.mmap(-1, mmap.PAGESIZE)
result = {
    'own memory': make_writable(ctypes.addressof(ctypes.c_char.from_buffer(own))),
    'weights': make_writable(models.encoder()._weights[0].data_ptr()),
    'languages': make_writable(language._identifier().nb_ptc.ctypes.data),
}
"""


def test_no_run_can_write_to_the_weights_that_all_share(scripted: Sandbox) -> None:
    """They are mapped of files that were opened to be read: mprotect(2) refuses, and grants a run's own memory."""
    assert {"own memory": "done", "weights": "EACCES", "languages": "EACCES"} == value_of(scripted.run(SHARED_PAGES))


def test_a_policy_without_models_does_not_see_them(box: Sandbox) -> None:
    """They are granted by name, as every place is."""
    assert [False, None] == value_of(
        box.run("import os; result = [os.path.exists('/models'), os.getenv('MODELS_DIR')]")
    )


def test_the_named_script_asks_several_models(scripted: Sandbox) -> None:
    """As custom_script runs it, under the policy that is made for it."""
    source = (ROOT / "scripts" / "ml_inference.py").read_text()
    parameters = {"script": "ml_inference.py", "args": {"texts": [TEXT, "The parcel is late."], "query": "shipping"}}
    request = {
        "task_type": "custom_script",
        "parameters": parameters,
        "source": source,
        "source_name": "ml_inference.py",
    }
    result = scripted.do(scripted.pool.run(json.dumps(request).encode()))
    found = value_of(result)
    assert (1, []) == (found["similarity"][0]["index"], found["left_out"])
    assert {"sentiment", "topic", "entities", "language"} == set(found["results"][0])


@pytest.mark.privilege("places are bound by root, or in a namespace of one's own")
def test_a_granted_place_that_is_missing_stops_the_start(
    policies: dict[str, Policy], host: Host, template: Template
) -> None:
    """Without a folder of models no zygote of the policy is started."""
    poor = msgspec.structs.replace(template, places={"scripts": template.places["scripts"]})
    with pytest.raises(HostError, match="'models'"):
        Sandbox(policies["ml_inference"], host, poor)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_models_are_found_without_namespaces(bare: Remote, model_type: str) -> None:
    """Where there is no root of our own the folder has the host's name, and the run is told of it."""
    reason, value, denied = bare.ask(
        task_type="ml_inference", parameters={"model_type": model_type, "input_data": [TEXT]}
    )
    assert (ExitReason.OK, []) == (reason, denied)
    assert 1 == len(value[model_type])
