"""The only reader of `params/` (but for `published/*.csv`, see `bcd.report.published`): files in, typed values out.

An unknown key, a wrong type or a wrong unit raises `UserError` with the file, the field and the nearest valid
spelling. Nothing here imports torch: building the DAG must stay fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bcd.config.check import check
from bcd.config.schema import Dataset, Method, Model, Params, Recipe, WeightedTerm
from bcd.config.terms import term_options
from bcd.errors import UserError, nearest, pick


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets a second key silently replace the first; a params file must not."""


def _mapping_without_duplicates(loader: _UniqueKeys, node: yaml.MappingNode) -> dict:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        if key_node.value in seen:
            line = key_node.start_mark.line + 1
            raise UserError(f"{loader.name}: line {line}: the key '{key_node.value}' stands twice; remove one")
        seen.add(key_node.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)


def read_yaml(path: Path) -> dict:
    try:
        with path.open() as stream:
            content = yaml.load(stream, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the command in the project's folder") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of names to settings")
    return content


def load_params(folder: Path = Path("params")) -> Params:
    """Read and check the four files of `params/`; raises `UserError` at the first thing that is wrong."""
    datasets = _load_datasets(folder / "datasets.yaml")
    models = {
        n: check(Model, v, f"{folder / 'models.yaml'}: {n}") for n, v in read_yaml(folder / "models.yaml").items()
    }
    raw_methods = read_yaml(folder / "methods.yaml")
    methods = {n: parse_method(v, n, f"{folder / 'methods.yaml'}: {n}") for n, v in raw_methods.items()}
    recipes = {
        n: check(Recipe, v, f"{folder / 'recipes.yaml'}: {n}") for n, v in read_yaml(folder / "recipes.yaml").items()
    }
    return Params(datasets=datasets, models=models, methods=methods, recipes=recipes, raw_methods=raw_methods)


def _load_datasets(path: Path) -> dict[str, Dataset]:
    raw = read_yaml(path)
    datasets = {}
    for name, values in raw.items():
        where = f"{path}: {name}"
        merged = dict(values) if isinstance(values, dict) else values
        if isinstance(merged, dict) and (base := merged.pop("variant_of", None)):
            merged = pick(raw, base, f"{where}.variant_of") | merged | {"files": base}
        datasets[name] = dataset = check(Dataset, merged, where)
        if not dataset.files:
            datasets[name] = dataset.model_copy(update={"files": name})
        if "train" not in dataset.splits:
            raise UserError(f"{where}.splits: a split named 'train' is required")
        training = min(dataset.images or dataset.splits["train"], dataset.splits["train"])
        if dataset.labelled and dataset.labelled > training:
            raise UserError(f"{where}.labelled: {dataset.labelled} is more than the {training} training images")
    return datasets


def parse_method(values: Any, name: str, where: str) -> Method:
    """A method from its YAML: keys of a term that are not `WeightedTerm` fields become options of its loss."""
    if not isinstance(values, dict) or not isinstance(values.get("terms"), list):
        return check(Method, values, where)
    if not values["terms"] and name != "none":
        raise UserError(f"{where}: a method without terms; add at least one, or use the method 'none'")
    known, terms = term_options(), []
    for i, raw in enumerate(values["terms"]):
        at = f"{where}: terms[{i}]"
        if not isinstance(raw, dict) or "term" not in raw:
            raise UserError(f"{at}: a term is a mapping with at least 'term', 'taps' and 'weight'")
        options = known.get(raw["term"])
        if options is None:
            raise UserError(f"{at}.term: '{raw['term']}' is not a term{nearest(raw['term'], known)}")
        own = {k: v for k, v in raw.items() if k in WeightedTerm.model_fields and k != "options"}
        for key in raw.keys() - own.keys() - options:
            raise UserError(f"{at}.{key}: unknown key{nearest(key, [*options, *WeightedTerm.model_fields])}")
        terms.append(own | {"options": {k: raw[k] for k in raw if k in options}})
    return check(Method, values | {"terms": terms}, where)


def default_suite(folder: Path = Path("params")) -> str:
    return str(pick(read_yaml(folder / "suite.yaml"), "suite", str(folder / "suite.yaml")))
