"""The only reader of `params/` (but for `published/*.csv`, see `bcd.report.published`): files in, typed values out.

An unknown key, a wrong type or a wrong unit raises `UserError` with the file, the field and the nearest valid
spelling, once its entry is used. Nothing here imports torch: building the DAG must stay fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bcd.config.architectures import DETECTOR_HEADS, SEGMENTATION_HEADS
from bcd.config.check import check
from bcd.config.entries import Entries
from bcd.config.overrides import term_keys
from bcd.config.schema.base import require_name
from bcd.config.schema.data import Dataset
from bcd.config.schema.exports import Export
from bcd.config.schema.methods import Method, WeightedTerm
from bcd.config.schema.models import AnyModel, DetectionModel, SegmentationModel
from bcd.config.schema.recipes import AnyRecipe, DetectionRecipe, SegmentationRecipe
from bcd.config.schema.suites import Params
from bcd.config.terms import check_options
from bcd.config.yaml_file import read_yaml
from bcd.data.formats import FORMATS, require_format
from bcd.errors import UserError, nearest, pick

Entry = TypeVar("Entry")
PACKAGE = Path(__file__).parents[1]
METHODS = Path(__file__).with_name("methods.yaml")  # a link to that of params/, so that an installed package has it


def load_params(folder: Path = Path("params")) -> Params:
    """Read the five files of `params/`, whose entries are checked when they are used; see `wrong_entries`.

    Raises UserError for a file that is no YAML.
    """
    _require_own_code(folder)
    return Params(
        datasets=_entries(folder / "datasets.yaml", _dataset),
        models=_entries(folder / "models.yaml", lambda values, _, where: parse_model(values, where)),
        methods=_entries(folder / "methods.yaml", lambda values, _, where: parse_method(values, _name(where), where)),
        recipes=_entries(folder / "recipes.yaml", lambda values, _, where: parse_recipe(values, where)),
        exports=_entries(folder / "exports.yaml", lambda values, _, where: check(Export, values, where)),
    )


def wrong_entries(params: Params) -> list[str]:
    """What is wrong with any entry of the five files, used or not; a sentence each."""
    files = (params.datasets, params.models, params.methods, params.recipes, params.exports)
    return [sentence for entries in files for sentence in entries.wrong()]


def _require_own_code(folder: Path) -> None:
    """Raise UserError where the params lie in another copy of the project than this code."""
    beside = folder.resolve().parent / PACKAGE.name / "__init__.py"
    if beside.exists() and not beside.samefile(PACKAGE / "__init__.py"):
        raise UserError(
            f"the code that runs is {PACKAGE}, but {beside.parent} lies beside {folder}; run `make install` in this "
            "folder and use its .venv"
        )


def default_suite(folder: Path = Path("params")) -> str:
    """The name in params/suite.yaml."""
    path = folder / "suite.yaml"
    content = read_yaml(path)
    if content.keys() != {"suite"}:
        raise UserError(f"{path}: it holds one line, such as `suite: scenes`, and no other key")
    return checked_name(content["suite"], f"{path}: suite")


def checked_name(name: object, where: str) -> str:
    """`name`, if it can name something; UserError that starts with `where` otherwise."""
    try:
        return require_name(name)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _entries(path: Path, parse: Callable[[Any, Mapping[str, Any], str], Entry]) -> Entries[Entry]:
    """The entries of a file; `parse` gets the values of one, those of all, and where they stand."""
    raw = read_yaml(path)
    return Entries(raw, lambda name, values: parse(values, raw, f"{path}: {checked_name(name, str(path))}"))


def _name(where: str) -> str:
    return where.rpartition(": ")[2]


def _dataset(values: Any, raw: Mapping[str, Any], where: str) -> Dataset:
    """A dataset; a `variant_of` another has what that says, but for what it says itself."""
    if isinstance(values, dict):
        if "files" in values:
            raise UserError(f"{where}.files: is not written; `variant_of: NAME` uses the files of another dataset")
        values = {"files": _name(where)} | values
        if base := values.pop("variant_of", None):
            if not isinstance(base, str):
                raise UserError(f"{where}.variant_of: expected the name of a dataset, but got {base!r}")
            if isinstance(raw.get(base), dict) and "variant_of" in raw[base]:
                raise UserError(f"{where}.variant_of: '{base}' is itself a variant; name the dataset that it is one of")
            if own := next((key for key in ("folder", "masks", "coco") if key in values), None):
                raise UserError(f"{where}.{own}: a variant has the files of '{base}'; take it out, or change it there")
            values = pick(raw, base, f"{where}.variant_of") | values | {"files": base}
    dataset = check(Dataset, values, where)
    require_format(dataset.format, None, where)
    if bool(dataset.generator) != FORMATS[dataset.format].generated:
        needs = "needs" if FORMATS[dataset.format].generated else "has no use for"
        raise UserError(f"{where}: generator: the format '{dataset.format}' {needs} it")
    if dataset.format == "masks" and not dataset.masks:
        raise UserError(f"{where}: masks: the format 'masks' needs it")
    if other := next((key for key in ("masks", "coco") if getattr(dataset, key) and key != dataset.format), None):
        raise UserError(f"{where}: {other}: the format '{dataset.format}' has no use for it")
    return dataset


def parse_model(values: Any, where: str) -> AnyModel:
    """A model from its YAML: the type that its head belongs to."""
    head = values.get("head") if isinstance(values, dict) else None
    if head is not None and head not in (*SEGMENTATION_HEADS, *DETECTOR_HEADS):
        raise UserError(f"{where}: head: '{head}' is not known{nearest(head, (*SEGMENTATION_HEADS, *DETECTOR_HEADS))}")
    detector = head in DETECTOR_HEADS
    return check(DetectionModel, values, where) if detector else check(SegmentationModel, values, where)


def parse_recipe(values: Any, where: str) -> AnyRecipe:
    """A recipe from its YAML: segmentation sees crops, detectors see whole images."""
    view = values.get("view") if isinstance(values, dict) else None
    crops = not isinstance(view, dict) or "crop" in view or "resize" not in view
    return check(SegmentationRecipe, values, where) if crops else check(DetectionRecipe, values, where)


def parse_method(values: Any, name: str, where: str) -> Method:
    """A method from its YAML: keys of a term that are not `WeightedTerm` fields become options of its loss."""
    if not isinstance(values, dict) or not isinstance(values.get("terms"), list):
        return check(Method, values, where)
    if not values["terms"] and name != "none":
        raise UserError(f"{where}: a method without terms; add at least one, or use the method 'none'")
    if values["terms"] and name == "none":
        raise UserError(f"{where}: 'none' is the student alone and has no terms; give the method another name")
    called = term_keys([str(raw.get("term")) if isinstance(raw, dict) else "" for raw in values["terms"]])
    terms = [_term(raw, f"{where}: terms.{key}") for key, raw in zip(called, values["terms"], strict=True)]
    return check(Method, values | {"terms": terms}, where)


def load_method(name: str) -> Method:
    """A method of params/methods.yaml, with its published weights and options, as this package was installed with it.

    Raises:
        UserError: there is no such method.

    Example:
        >>> from bcd.config.load import load_method
        >>> [(entry.term, entry.taps, entry.weight, entry.options) for entry in load_method("cwd").terms]
        [('cwd', ['logits'], 3.0, {'temperature': 4.0})]
    """
    return parse_method(pick(read_yaml(METHODS), name, "method"), name, f"{METHODS}: {name}")


def _term(raw: Any, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict) or not {"term", "taps", "weight"} <= raw.keys() or not raw["taps"]:
        raise UserError(f"{where}: a term is a mapping with at least 'term', 'taps' and 'weight'")
    fields = WeightedTerm.model_fields.keys() - {"options"}
    options = {key: value for key, value in raw.items() if key not in fields}
    checked = check_options(str(raw["term"]), options, where, beside=fields)
    return {key: raw[key] for key in raw if key in fields} | {"options": checked}
