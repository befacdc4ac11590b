"""docs/methods.md, the presets and `TERMS` tell the same story."""

import re

import pytest
from support.project import ROOT

from bcd.config.load import load_params
from bcd.losses import STAGES, TERMS

PAGE = (ROOT / "docs" / "methods.md").read_text()
ENTRIES = dict(block.split("\n", 1) for block in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:])
every_term = pytest.mark.parametrize("name", TERMS)


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def methods_table() -> dict[str, str]:
    """Method -> the cell of its terms."""
    page = ENTRIES["The methods of `params/methods.yaml`"]
    lines = re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", page, flags=re.MULTILINE)
    return {name: terms for names, terms in lines for name in quoted(names)}


@every_term
def test_every_term_has_an_entry_with_formula_and_source(name):
    entry = ENTRIES[name]
    assert re.search(r"^    \S", entry, flags=re.MULTILINE), "a formula in an indented block"
    assert "Source: " in entry or "Sources: " in entry


@every_term
def test_the_entry_names_the_default_taps(name):
    stated = re.search(r"Taps:\s+([^.;,]*(?:, `[^.;,]*)*)", ENTRIES[name])[1]
    expanded = re.sub(r"`stage1`–`stage4`", ", ".join(f"`{stage}`" for stage in STAGES), stated)
    assert quoted(expanded) == set(TERMS[name].taps)


@every_term
def test_the_entry_names_every_option(name):
    options = set(TERMS[name].options)
    assert options <= quoted(ENTRIES[name])
    assert bool(re.search(r"Options:\s", ENTRIES[name])) == bool(options)


def test_no_entry_without_a_term():
    assert {key for key in ENTRIES if key.islower()} == set(TERMS)  # other headings are sentences


def test_every_preset_is_in_the_table_with_its_terms():
    methods, table = load_params(ROOT / "params").methods, methods_table()
    assert set(table) == set(methods)
    for name, method in methods.items():
        named = quoted(table[name]) & set(TERMS)
        used = {term.term for term in method.terms}
        assert named == used or quoted(table[name]) & set(methods), f"{name}: {table[name]}"


def test_every_term_is_used_by_a_preset():
    used = {term.term for method in load_params(ROOT / "params").methods.values() for term in method.terms}
    assert used == set(TERMS)
