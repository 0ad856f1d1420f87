"""The digest of a rule's code: what changes it, and what does not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from conftest import ROOT, install

from prudent.errors import InputError
from prudent.workflow import digest
from prudent.workflow.digest import SCRIPTS, code_digest, imported_files, package_versions
from prudent.workflow.objectives import objectives

FILES = {
    "train.py": '''"""Train."""
from ours import loop
from ours.tables import write


def main():
    """Runs it."""
    from ours import late

    return loop.run() + late.VALUE
''',
    "other.py": "from ours import unrelated\n",
    "ours/__init__.py": '"""Ours."""\n',
    "ours/loop.py": '''"""The loop."""
from __future__ import annotations

from typing import TYPE_CHECKING

from .losses import loss
from . import deep

if TYPE_CHECKING:
    from ours.typing_only import Kind


class Loop:
    """A loop."""

    size: int = 1
    "the size"


def run() -> Kind:
    return loss(2) + deep.inner.DEPTH
''',
    "ours/losses.py": "def loss(x):\n    return x * 2\n",
    "ours/tables.py": "import json\n\n\ndef write():\n    return json\n",
    "ours/late.py": "VALUE = 1\n",
    "ours/deep/__init__.py": "from ours.deep import inner\n",
    "ours/deep/inner.py": "DEPTH = 1\n",
    "ours/unrelated.py": "VALUE = 1\n",
    "ours/typing_only.py": "Kind = int\n",
}
SEEN = sorted(set(FILES) - {"other.py", "ours/unrelated.py", "ours/typing_only.py"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def replace(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


def test_the_imports_are_followed(folder):
    files = imported_files(folder / "train.py", folder)
    found = {path.relative_to(folder).as_posix() for path in files}
    assert sorted(found) == SEEN


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("train.py", "from ours import loop", "# A comment.\nfrom ours import loop"),
        ("train.py", '"""Runs it."""', '"""Runs it, and says so."""'),
        ("ours/losses.py", "return x * 2", "return (\n        x * 2\n    )  # twice"),
        ("ours/loop.py", '    """A loop."""\n\n', ""),
        ("ours/loop.py", '"the size"', '"how large it is"'),
        ("ours/loop.py", "from ours.typing_only import Kind", "from ours.unrelated import Kind"),
        ("ours/unrelated.py", "VALUE = 1", "VALUE = 2"),
        ("ours/typing_only.py", "int", "float"),
    ],
)
def test_edits_without_effect_change_nothing(folder, name, old, new):
    before = code_digest("train", folder)
    replace(folder, name, old, new)
    assert code_digest("train", folder) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("train.py", "loop.run()", "loop.run() + 1"),
        ("ours/losses.py", "x * 2", "x * 3"),
        ("ours/loop.py", "size: int = 1", "size: int = 2"),
        ("ours/late.py", "VALUE = 1", "VALUE = 2"),
        ("ours/deep/inner.py", "DEPTH = 1", "DEPTH = 2"),
        ("ours/__init__.py", '"""Ours."""', "SETTING = 1"),
    ],
)
def test_a_change_of_behaviour_changes_it_wherever_it_is(folder, name, old, new):
    before, other = code_digest("train", folder), code_digest("other", folder)
    replace(folder, name, old, new)
    assert code_digest("train", folder) != before
    # The other script imports the package, and of this nothing else.
    assert (code_digest("other", folder) != other) == (name == "ours/__init__.py")


def test_code_that_moves_between_modules_changes_it(folder):
    before = code_digest("train", folder)
    (folder / "ours/tables.py").write_text(FILES["ours/late.py"])
    (folder / "ours/late.py").write_text(FILES["ours/tables.py"])
    assert code_digest("train", folder) != before


def test_a_missing_script_and_a_broken_one_are_named(folder):
    with pytest.raises(InputError, match=r"nothing\.py: there is no such script"):
        code_digest("nothing", folder)
    (folder / "ours/losses.py").write_text("def loss(:\n")
    with pytest.raises(InputError, match=r"losses\.py: line 1"):
        code_digest("train", folder)


def test_the_digest_is_the_same_in_every_process_and_place(folder, tmp_path):
    scripts = sorted(path.stem for path in SCRIPTS.glob("*.py"))
    program = (
        "import sys; from prudent.workflow.digest import code_digest\n"
        f"print(*(code_digest(name) for name in {scripts}))"
    )
    for salt in ("1", "2"):
        printed = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": str(ROOT / "workflow_scripts"), "PYTHONHASHSEED": salt},
        ).stdout.split()
        assert printed == [code_digest(name) for name in scripts]
    assert len(set(printed)) == len(scripts)
    copied = tmp_path / "elsewhere"
    for name, text in FILES.items():
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_text(text)
    assert code_digest("train", copied) == code_digest("train", folder)


def test_versions_of_the_imported_packages_count(folder, tmp_path):
    before = code_digest("train", folder), code_digest("other", folder)
    replace(folder, "ours/late.py", "VALUE = 1", "import pandas as pd\n\nVALUE = 1")
    with_pandas = code_digest("train", folder)
    assert package_versions(imported_files(folder / "train.py", folder)) == {
        "pandas": pandas.__version__
    }
    another = install(tmp_path / "packages", "pandas")
    program = (
        "import sys; from pathlib import Path; from prudent.workflow.digest import code_digest\n"
        f"print(*(code_digest(name, Path({str(folder)!r})) for name in ('train', 'other')))"
    )
    for place, same in ((ROOT, True), (another, False)):
        printed = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": f"{place}:{ROOT / 'workflow_scripts'}"},
        ).stdout.split()
        assert (printed[0] == with_pandas) == same
        assert printed[1] == before[1], "it imports no package"


def test_only_what_an_objective_needs_counts(tmp_path):
    (tmp_path / "prudent/objectives").mkdir(parents=True)
    for package in ("prudent", "prudent/objectives"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "prudent/used.py").write_text("USED = 1\n")
    (tmp_path / "run.py").write_text("import prudent\n")
    module = tmp_path / "prudent/objectives/family.py"
    (tmp_path / "prudent/objectives/other.py").write_text("def zero(x):\n    return x\n")
    text = (
        "SCALE = 2\n\ndef _half(x):\n    return x / 2\n\ndef one(x):\n    return _half(x)\n\n"
        "def two(x):\n    return one(x) * SCALE\n\ndef three(x):\n    return x\n"
    )

    def digests(text: str) -> dict[str, str]:
        module.write_text(text)
        return {
            name: code_digest("run", tmp_path, objective=name) for name in ("one", "two", "three")
        }

    def changed(edited: str) -> set[str]:
        after = digests(edited)
        return {name for name in before if before[name] != after[name]}

    before = digests(text)
    assert len(set(before.values())) == 3
    assert changed(text + "\ndef four(x):\n    return two(x)\n") == set()
    # With helpers, classes, constants and imports of its own.
    more = "class Four:\n    SIZE = 4\n\nFOUR = Four()\n\ndef _four(x):\n    return FOUR\n\n"
    more += "def four(x):\n    return _four(x) + USED + math.pi\n"
    assert changed("import math\nfrom prudent.used import USED\n" + text + more) == set()
    (tmp_path / "prudent/objectives/other.py").write_text("def zero(x):\n    return -x\n")
    assert changed(text) == set()
    with pytest.raises(InputError, match="no file has the objective 'five'"):
        code_digest("run", tmp_path, objective="five")
    assert changed(text + "print('at import')\n") == {"one", "two", "three"}
    assert changed(text.replace("return x\n", "return -x\n")) == {"three"}
    assert changed(text.replace("* SCALE", "- SCALE")) == {"two"}
    assert changed(text.replace("return _half(x)", "return _half(-x)")) == {"one", "two"}
    assert changed(text.replace("x / 2", "x / 3")) == {"one", "two"}
    assert changed(text.replace("SCALE = 2", "SCALE = 3")) == {"two"}


def test_another_objective_is_none_of_those_that_exist(tmp_path):
    """With all that there are: a function more in each file, and a file more."""
    for path in [*SCRIPTS.glob("*.py"), *SCRIPTS.glob("prudent/**/*.py")]:
        copy = tmp_path / path.relative_to(SCRIPTS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)

    def digests() -> dict[str, str]:
        return {
            name: code_digest("train_policy", tmp_path, objective=name) for name in objectives()
        }

    before = digests()
    assert len(set(before.values())) == len(before)
    more = "\n\ndef another_{}(rewards, beta):\n    return Signal(rewards.mean, beta)\n"
    for family in {objective.file.name for objective in objectives().values()}:
        path = tmp_path / "prudent/objectives" / family
        path.write_text(path.read_text() + more.format(path.stem))
    (tmp_path / "prudent/objectives/new.py").write_text("import math\n" + more.format("new"))
    assert digests() == before


@pytest.mark.parametrize(
    ("lines", "old", "new"),
    [
        ("def _a(x):\n    return 1\n\n_a = functools.cache(_a)", "return 1", "return 2"),
        ("K = 1\nK = K + 1\n\ndef _a(x):\n    return K", "K = 1", "K = 2"),
    ],
)
def test_all_definitions_of_a_name_count(tmp_path, lines, old, new):
    (tmp_path / "prudent/objectives").mkdir(parents=True)
    for package in ("prudent", "prudent/objectives"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "run.py").write_text("import prudent\n")
    text = f"import functools\n\n{lines}\n\ndef one(x):\n    return _a(x)\n"
    seen = []
    for edited in (text, text.replace(old, new)):
        (tmp_path / "prudent/objectives/family.py").write_text(edited)
        seen.append(code_digest("run", tmp_path, objective="one"))
    assert seen[0] != seen[1]


MESSAGES = """
def loss(x):
    logger.info("step %d", x)
    logger.log(x, "kept")
    if x < 0:
        raise InputError(f"found {x}, " "expected one >= 0" if x else "nothing")
    if x > 9:
        raise BadRow("large", "a number")
    return x
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("step %d", "now at step %d", True),
        ("expected one", "but expected one", True),
        ('else "nothing"', 'else "none"', True),
        ("{x}", "{-x}", False),
        ("x)\n    logger.log", "-x)\n    logger.log", False),
        ("kept", "counted", False),
        ("InputError", "ValueError", False),
        ("large", "huge", False),
    ],
)
def test_texts_of_messages_are_no_behaviour(folder, old, new, same):
    (folder / "ours/losses.py").write_text(MESSAGES)
    before = code_digest("train", folder)
    replace(folder, "ours/losses.py", old, new)
    assert (code_digest("train", folder) == before) == same


def test_a_digest_is_made_once_while_no_file_changes(folder, monkeypatch):
    made = []
    find = digest.imported_files
    monkeypatch.setattr(
        digest, "imported_files", lambda *args: made.append(args[0].name) or find(*args)
    )
    first = code_digest("train", folder)
    assert [code_digest("train", folder) for _ in range(9)] == [first] * 9
    assert made == ["train.py"]
    # A module that was not there before hides the package's name.
    (folder / "ours/deep.py").write_text("VALUE = 1\n")
    assert code_digest("train", folder) != first


def test_what_a_script_loads_by_name_counts_with_its_imports(folder):
    (folder / "ours/page.html").write_text("<p>")
    (folder / "ours/drawn.py").write_text("from ours import unrelated\n")

    def loaded():
        return code_digest("train", folder, loads=["ours/drawn.py", "ours/page.html"])

    seen = [code_digest("train", folder), loaded()]
    replace(folder, "ours/unrelated.py", "VALUE = 1", "VALUE = 2")
    seen.append(loaded())
    replace(folder, "ours/page.html", "<p>", "<p> ")
    seen.append(loaded())
    assert len(set(seen)) == 4
    replace(folder, "ours/drawn.py", "import unrelated", "import unrelated  # a comment")
    assert loaded() == seen[-1] and code_digest("train", folder) == seen[0]
    with pytest.raises(InputError, match="none.html: there is no such file"):
        code_digest("train", folder, loads=["none.html"])
