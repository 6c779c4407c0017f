"""One word per thing: no two public classes of the project have the same name, and each name says something."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict

from tests.support.sources import ROOT, modules

FOLDERS = ("engine", "sandbox", "handlers")
TWICE: frozenset[str] = frozenset()
"""Names that may stand twice. It is empty, and is to stay so."""
VAGUE = frozenset(
    {
        *("Ask", "Asked", "Told", "Held", "Swept", "Wanted", "Pace", "Outcome", "Ended", "Entry", "Waiting"),
        *("Failing", "Found"),
        *("Door", "Course", "Wire", "Manager", "Helper", "Util", "Runner", "Executor", "Submission", "Verdict"),
    }
)
"""Words that name no thing, or that the glossary replaces."""


@functools.cache
def public_classes() -> dict[str, list[str]]:
    """Name of each public class → the modules that define one of this name, at their top or within another class."""
    found = defaultdict(list)
    for folder in FOLDERS:
        for path, tree in modules(folder):
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(str(path.relative_to(ROOT)))
    return dict(found)


def test_no_class_name_stands_twice() -> None:
    """A reader who meets a name knows which class it is."""
    assert {} == {name: where for name, where in public_classes().items() if len(where) > 1 and name not in TWICE}


def test_class_names_are_words_for_things() -> None:
    """A name says what the thing is; participles and all-purpose words do not."""
    assert {} == {name: where for name, where in public_classes().items() if name in VAGUE}


def test_what_may_stand_twice_does() -> None:
    """The list of exceptions holds nothing that is not one."""
    assert set() == {name for name in TWICE if len(public_classes().get(name, ())) < 2}


def test_classes_are_found() -> None:
    """The tests above look at something."""
    assert {"TaskResult", "Pool", "CustomScript"} <= public_classes().keys()
