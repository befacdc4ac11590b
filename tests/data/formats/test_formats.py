"""`FORMATS` against the modules that it names, and what is said of a format that cannot be used."""

import inspect
import json
import pkgutil
import subprocess
import sys
from typing import get_args

import pytest

from bcd.config.schema.base import TaskName
from bcd.config.schema.data import Dataset
from bcd.config.schema.masks import Masks
from bcd.data import formats
from bcd.data.formats import (
    FORMATS,
    LACKING,
    ArchivedFormat,
    Format,
    GeneratedFormat,
    ObjectFormat,
    SemanticFormat,
    load_format,
    reader_of,
    require_format,
)
from bcd.errors import UserError

PROTOCOLS = {"semantic": SemanticFormat, "detection": ObjectFormat, "instance": ObjectFormat}
FIELDS = {"classes": ["a"], "splits": {"train": 1}, "licence": "", "source": ""}
DESCRIBED = {
    "masks": Dataset(format="masks", masks=Masks(images="images", masks="masks", fractions={"train": 1}), **FIELDS),
    "coco": Dataset(format="coco", **FIELDS),
}
HEAVY = ("numpy", "torch", "cv2", "scipy", "PIL", "pycocotools", "timm")


def offer(name: str):
    """What reads a format's files: the module, or what that makes of a dataset."""
    return reader_of(DESCRIBED[name]) if FORMATS[name].described else load_format(name)


def members(protocol: type) -> dict:
    return {name: value for name, value in vars(protocol).items() if not name.startswith("_")}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_offers_what_its_tasks_need(name):
    offered, module = FORMATS[name], offer(name)
    needed = {PROTOCOLS[task] for task in offered.tasks} | {GeneratedFormat if offered.generated else ArchivedFormat}
    assert offered.tasks
    for protocol in needed:
        for member, stated in members(protocol).items():
            assert hasattr(module, member), f"{name} has no {member}"
            if inspect.isfunction(stated):
                ours, theirs = (list(inspect.signature(f).parameters) for f in (getattr(module, member), stated))
                assert ours == theirs[1:], f"{name}.{member}"  # without self


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_states_no_task_too_few(name):
    module = offer(name)
    can = [task for task, protocol in PROTOCOLS.items() if all(hasattr(module, m) for m in members(protocol))]
    assert list(FORMATS[name].tasks) == can


def test_every_module_of_the_folder_has_its_line():
    modules = {module.name for module in pkgutil.iter_modules(formats.__path__)}
    assert {name for name in modules if not name.startswith("_")} == set(FORMATS)


def test_the_tasks_are_those_of_the_suites():
    assert set(PROTOCOLS) == set(LACKING) == set(get_args(TaskName))


def test_planning_imports_nothing_heavy():
    code = "import sys, json, bcd.data.formats; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert not {name for name in loaded if name.partition(".")[0] in HEAVY or name.startswith("bcd.data.formats.")}


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("vok", None, "here: format 'vok' is not known; did you mean 'voc'?"),
        ("voc", "detection", "here: format 'voc' has no objects, so it cannot be used for the task 'detection'; "
         "it is for semantic"),
        ("coco", "semantic", "here: format 'coco' has no label maps, so it cannot be used for the task 'semantic'; "
         "it is for detection and instance"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(name, task, message):
    with pytest.raises(UserError) as caught:
        require_format(name, task, "here")
    assert str(caught.value) == message


def test_what_can_be_used_is_let_through():
    for name, offered in FORMATS.items():
        for task in (None, *offered.tasks):
            require_format(name, task, "here")


def test_a_module_without_its_line_is_said(monkeypatch):
    monkeypatch.delitem(FORMATS, "voc")
    with pytest.raises(
        UserError, match=r"'voc' has a module but no line; add it to FORMATS in bcd/data/formats/__init"
    ):
        load_format("voc")
    monkeypatch.setitem(FORMATS, "voc", Format(("semantic",)))
    assert load_format("voc").SPLITS
