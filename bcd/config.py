"""The only reader of `params/` (but for `published/*.csv`, see `bcd.published`): files in, typed values out.

An unknown key, a wrong type or a wrong unit raises `UserError` with the file, the field and the nearest valid
spelling. Nothing here imports torch: building the DAG must stay fast.
"""

from __future__ import annotations

import ast
import difflib
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from bcd import compose
from bcd.errors import UserError
from bcd.schema import FACTS, SHARED, Dataset, Method, Model, Params, Recipe, Suite, Table, WeightedTerm


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


def nearest(word: str, known) -> str:
    """`; did you mean 'x'?` for the closest of `known`, else the list of what is known."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(sorted(map(str, known)))}"


def pick(mapping: dict[str, Any], name: str, where: str):
    """`mapping[name]`, or a `UserError` that says where the name was used and what it may have been meant to be."""
    if name not in mapping:
        raise UserError(f"{where}: '{name}' is not defined{nearest(name, mapping)}")
    return mapping[name]


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


def check(model: type[BaseModel], values: Any, where: str):
    """`values` as `model`; the first violation becomes one sentence that starts with `where` and the field."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(_sentence(model, error.errors()[0], where)) from None


def _sentence(model: type[BaseModel], error: dict, where: str) -> str:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    where = f"{where}: {field}" if field else where
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key{nearest(error['loc'][-1], _fields_at(model, error['loc'][:-1]))}"
    if kind == "missing":
        return f"{where}: this key is required and missing"
    if kind == "value_error":
        return f"{where}: {error['ctx']['error']}"
    if kind == "literal_error":
        known = [word.strip("' ") for word in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return f"{where}: '{given}' is not allowed{nearest(given, known)}"
    hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if kind == "float_type" and isinstance(given, str) else ""
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}, but got {given!r}{hint}"


def _fields_at(model: type[BaseModel], path: tuple) -> list[str]:
    """The field names of the (possibly nested) model in which an unknown key was found."""
    for part in path:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        inner = [m for m in _models_in(model.model_fields[part].annotation)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _models_in(annotation) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)]


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


def load_suite(name: str, folder: Path = Path("params")) -> Suite:
    """Read `params/suites/<name>.yaml`, with the tables of the suites that it is made `of`."""
    path = folder / "suites" / f"{name}.yaml"
    if not path.exists():
        known = [p.stem for p in (folder / "suites").glob("*.yaml")]
        raise UserError(f"{path} does not exist{nearest(name, known)}")
    raw = read_yaml(path)
    shared = {key: raw.pop(key) for key in SHARED if key in raw}
    if isinstance(raw.get("tables"), list):
        raw["tables"] = [shared | table if isinstance(table, dict) else table for table in raw["tables"]]
        for table in raw["tables"]:
            if isinstance(table, dict) and "published" in table:
                table["published"] = compose.published_cells(table["published"])
    suite = check(Suite, raw | {"name": name}, str(path))
    return _joined(suite, folder, str(path))


def _joined(suite: Suite, folder: Path, where: str) -> Suite:
    """The suite with the tables that it takes from others, and with its settings of tables."""
    if suite.name in suite.of:
        raise UserError(f"{where}: of: a suite cannot be made of itself; remove '{suite.name}'")
    taken = [compose.adopted(table, other) for other in suite.of for table in load_suite(other, folder).tables]
    suite = suite.model_copy(update={"tables": [*suite.tables, *taken]})
    called = [table.name for table in suite.tables]
    if twice := sorted({name for name in called if called.count(name) > 1}):
        raise UserError(f"{where}: tables: two are called '{twice[0]}'; give one another name")
    if idle := compose.idle_setting(suite):
        raise UserError(
            f"{where}: set.{idle}: it concerns nothing that the suite's tables use; write <part>.<name>.<field>, where "
            f"part is {', '.join(compose.PARTS)} and * stands for any letters of a name"
        )
    tables = [_as_set(suite, "tables", table.name, table) for table in suite.tables]
    return suite.model_copy(update={"tables": tables})


def for_table(params: Params, suite: Suite, table: Table) -> Params:
    """`params` as a table of the suite sees them: datasets under the table's names for them, and datasets, models and
    recipes with the suite's settings. Names that are not defined are left to whoever looks them up."""
    if not suite.of and not suite.set:
        return params
    changed = {}
    for part, names in compose.names(table).items():
        known = getattr(params, part, {})
        plain = {name: compose.plain_name(suite, name) if part == "datasets" else name for name in names}
        found = {
            name: _as_set(suite, part, name, known[original]) for name, original in plain.items() if original in known
        }
        if part != "tables":
            changed[part] = known | found
    return params.model_copy(update=changed)


def _as_set(suite: Suite, part: str, name: str, value: BaseModel):
    """`value` with what the suite's `set` says of it, checked like the file that it came from."""
    chosen = compose.settings(suite, part, name)
    if not chosen:
        return value
    where = f"params/suites/{suite.name}.yaml: set.{part}.{name}"
    return check(type(value), override(value.model_dump(), chosen, where), where)


def default_suite(folder: Path = Path("params")) -> str:
    return str(pick(read_yaml(folder / "suite.yaml"), "suite", str(folder / "suite.yaml")))


@cache
def term_sources() -> dict[str, tuple[Path, ast.AST]]:
    """Term name -> file and syntax tree of its loss, read from the source of `bcd/losses/`.

    Parsed rather than imported: the losses import torch (seconds), and every DAG build needs their options.
    """
    folder = Path(__file__).parent / "losses"
    defined: dict[str, tuple[Path, ast.AST]] = {}
    for path in sorted(folder.glob("*.py")):
        nodes = [n for n in ast.parse(path.read_text()).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        defined |= {node.name: (path, node) for node in nodes}
    for node in ast.parse((folder / "__init__.py").read_text()).body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if isinstance(target, ast.Name) and target.id == "TERMS":
            return {k.value: defined[v.args[0].id] for k, v in zip(node.value.keys, node.value.values, strict=True)}
    raise RuntimeError(f"{folder / '__init__.py'} has no TERMS")


@cache
def term_options() -> dict[str, set[str]]:
    """Term name -> names of the options its loss takes: its keyword-only arguments that are not FACTS."""
    options = {}
    for name, (_, node) in term_sources().items():
        if isinstance(node, ast.ClassDef):
            node = next(f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__")
        options[name] = {a.arg for a in node.args.kwonlyargs} - set(FACTS)
    return options


def override(values: dict, settings: dict[str, Any], where: str) -> dict:
    """A deep copy of `values` with `a.b.0.c`-style paths replaced; the path must exist, so a typo is an error.

    The last key alone may be new where the caller validates the result afterwards (an option left at its default), and
    so may an index one past the end, which appends.
    """
    result = deepcopy(values)
    for path, value in settings.items():
        *parents, last = path.split(".")
        node: Any = result
        for part in parents:
            if isinstance(node, list):
                if not part.isdigit() or int(part) >= len(node):
                    raise UserError(f"{where}: {path}: '{part}' must be an index below {len(node)}")
                node = node[int(part)]
            elif isinstance(node, dict) and part in node:
                node = node[part]
            else:
                raise UserError(
                    f"{where}: {path}: '{part}' does not exist{nearest(part, node if isinstance(node, dict) else [])}"
                )
        if isinstance(node, list):
            if not last.isdigit() or int(last) > len(node):
                raise UserError(f"{where}: {path}: '{last}' must be an index, at most {len(node)}, which appends")
            node[int(last) : int(last) + 1] = [value]
        else:
            node[last] = value
    return result
