"""Options of terms have types and ranges, which are known without importing torch."""

import inspect
import re
import subprocess
import sys

import pytest
import yaml
from support.project import ROOT

from bcd.config import terms
from bcd.config.schema.methods import WeightedTerm
from bcd.config.terms import check_options, option_names, term_names, term_options, term_sources
from bcd.errors import UserError

WHERE = "params/methods.yaml: pbd: terms[0]"


def test_torch_is_not_imported():
    code = "import sys, bcd.config.terms as t; t.check_options('kd', {}, 'here'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_terms_and_modules_are_those_of_the_registry():
    from bcd.losses import TERMS

    assert term_names() == tuple(TERMS)
    assert {term: str(path) for term, path in term_sources().items()} == {
        name: inspect.getsourcefile(inspect.unwrap(term.loss)) for name, term in TERMS.items()
    }


@pytest.mark.parametrize("term", term_names())
def test_options_are_those_of_the_signature_and_defaults_have_their_types(term):
    from bcd.losses import FACTS, TERMS

    parameters = inspect.signature(TERMS[term].loss).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in FACTS}
    assert option_names(term) == tuple(options)
    assert check_options(term, options, "the defaults") == options
    assert term_options(term)().model_dump() == options


def test_every_shipped_method_fits():
    for name, method in yaml.safe_load((ROOT / "params/methods.yaml").read_text()).items():
        for entry in method["terms"]:
            options = {key: value for key, value in entry.items() if key not in WeightedTerm.model_fields}
            assert check_options(entry["term"], options, name) == options


@pytest.mark.parametrize(
    ("term", "options", "sentence"),
    [
        ("boundary", {"operator": "sobel"}, "operator: 'sobel' is not allowed; known: affinity, attention, residual"),
        ("boundary", {"operator": "residuals"}, "operator: 'residuals' is not allowed; did you mean 'residual'?"),
        ("kd", {"temperature": "hot"}, "temperature: input should be a valid number, but got 'hot'"),
        ("kd", {"temperature": True}, "temperature: input should be a valid number, but got True"),
        ("kd", {"temperature": None}, "temperature: input should be a valid number, but got None"),
        ("kd", {"temperature": 0}, "temperature: input should be greater than 0, but got 0"),
        ("kd", {"temperature": -1}, "temperature: input should be greater than 0, but got -1"),
        ("kd", {"temperature": float("inf")}, "temperature: input should be a finite number, but got inf"),
        ("context", {"pool": 0}, "pool: input should be greater than or equal to 1, but got 0"),
        ("context", {"pool": 1.5}, "pool: input should be a valid integer, but got 1.5"),
        ("context", {"normalise": 1}, "normalise: input should be a valid boolean, but got 1"),
        ("mgd", {"mask_ratio": 1.1}, "mask_ratio: input should be less than or equal to 1, but got 1.1"),
        ("bpkd_body", {"width": 4}, "width: 4 is even; a window around a pixel needs an odd number"),
        ("kd", {"temprature": 1.0}, "temprature: unknown key; did you mean 'temperature'?"),
        ("kd", {"wieght": 1.0}, "wieght: unknown key; did you mean 'weight'?"),
        ("kd", {"pool": 2}, "pool: unknown key; known: .*normalisation, .*temperature.*"),
        ("kd", {"valid": 2}, "valid: unknown key; known: .*"),
        ("kd", {7: 2}, "7: unknown key; known: .*"),
        ("hkd", {}, "term: 'hkd' is not a term; did you mean 'kd'?"),
        (["kd"], {}, "term: .* is not a term.*"),
    ],
)
def test_what_does_not_fit_is_one_sentence_with_the_remedy(term, options, sentence):
    with pytest.raises(UserError) as error:
        check_options(term, options, WHERE, beside=WeightedTerm.model_fields)
    assert re.fullmatch(sentence.replace("?", r"\?"), str(error.value).removeprefix(f"{WHERE}."))


def test_a_term_without_options_says_so():
    with pytest.raises(UserError, match="pool: unknown key; 'fitnet' has no options$"):
        check_options("fitnet", {"pool": 2}, WHERE)


def test_options_come_back_as_they_were_given():
    """They enter the addresses of runs: an integer stays one, and no default is filled in."""
    options = {"temperature": 4}
    checked = check_options("kd", options, WHERE)
    assert checked == options and type(checked["temperature"]) is int and checked is not options


@pytest.mark.parametrize(
    ("signature", "mistake"),
    [
        ("student, teacher, *, valid=None, power=2.0", "the option 'power' of the term 'edges' has no type"),
        ("student, teacher, *, power: Power = 2.0", "'power' of the term 'edges'.*'Power' is not defined"),
        ("student, teacher, *, power: 'Positive' = 2.0", "'power' of the term 'edges'.*text"),
        ("student, teacher, *, power: Positive = EXPONENT", "'power' of the term 'edges'.*"),
    ],
)
def test_a_mistake_in_a_loss_names_the_term_and_the_option(tmp_path, monkeypatch, signature, mistake):
    (tmp_path / "__init__.py").write_text(
        "from bcd.losses.edges import edges\nFACTS = ('valid',)\n"
        "TERMS: dict[str, Term] = {'edges': Term(edges, taps=('logits',))}\n"
    )
    (tmp_path / "edges.py").write_text(f"def edges({signature}):\n    return 0\n")
    monkeypatch.setattr(terms, "LOSSES", tmp_path)
    for read in (terms._registry, terms._facts, terms._sources, terms.term_options):
        read.cache_clear()
    try:
        with pytest.raises(AssertionError, match=mistake):
            term_options("edges")
    finally:
        for read in (terms._registry, terms._facts, terms._sources, terms.term_options):
            read.cache_clear()
