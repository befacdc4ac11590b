"""The paper suites: their rows, pairs and published numbers, the optimiser they need, and suites made of others."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from support.project import ROOT
from test_config import edit

from bcd.config.load import load_params
from bcd.config.schema.recipes import AdamW, CropView, Resize, SegmentationRecipe
from bcd.config.schema.suites import Params, Suite
from bcd.config.suites import load_suite
from bcd.data.palette import palette_of
from bcd.errors import UserError
from bcd.models import build
from bcd.report import published
from bcd.runs import expand
from bcd.runs.spec import training_json
from bcd.train.optimizer import make_optimizer, parameter_groups

PAPERS = ("bpkd", "bcd-seg", "coco")
OURS = {"brd", "bcd", "bckd", "bpkd", "pbd"}
RIVALS = {"none", "skd", "ifvd", "cirkd", "cwd"}
BPKD_PAIRS = {
    ("pspnet-r101", "pspnet-r18"),
    ("deeplabv3plus-r101", "deeplabv3plus-mv2"),
    ("fcn-hrnet-w48", "fcn-hrnet-w18s"),
    ("isanet-r101", "isanet-r18"),
}


def warm(**optimizer: object) -> SegmentationRecipe:
    return SegmentationRecipe(
        steps=1, batch=1, lr=6.0e-5, optimizer=AdamW(name="adamw", weight_decay=0.01, **optimizer),
        view=CropView(crop=[8, 8]),
    )  # fmt: skip


@cache
def params() -> Params:
    return load_params(ROOT / "params")


@cache
def suite(name: str) -> Suite:
    return load_suite(name, ROOT / "params")


def rows(table) -> set[str]:
    return {entry if isinstance(entry, str) else entry.name for entry in table.methods}


# --- what the suites hold --------------------------------------------------------------------------------------------


def test_bpkd_has_every_data_set_and_pair_with_its_rows():
    tables = suite("bpkd").tables
    found = {(t.pairs[0].dataset, t.pairs[0].teacher, t.pairs[0].student.removesuffix("-ade20k")) for t in tables}
    assert found == {(d, *pair) for d in ("cityscapes", "ade20k", "pascal-context") for pair in BPKD_PAIRS}
    assert len(tables) == 12
    for table in tables:
        assert rows(table) >= RIVALS | OURS
        assert params().recipes[table.pairs[0].recipe].steps == 80_000


def test_every_number_of_bpkds_readme_stands_beside_its_row():
    lines = published.read_lines(ROOT / "params" / "published" / "semseg_kd_bpkd_readme.csv")
    shown = [one.line for table in suite("bpkd").tables for one in resolved("bpkd", table)]
    assert sorted(line.number for line in shown) == [line.number for line in lines]


def test_bcd_seg_has_the_papers_data_sets_and_a_transformer():
    tables = suite("bcd-seg").tables
    assert {t.pairs[0].dataset for t in tables} == {"voc2012", "cityscapes", "ade20k", "cocostuff10k"}
    assert all(rows(table) >= RIVALS | OURS for table in tables)
    backbones = {params().models[t.pairs[0].student].backbone for t in tables}
    assert {"mit_b0", "swin_tiny_patch4_window7_224"} < backbones


@pytest.mark.parametrize("name", PAPERS)
def test_recipes_are_for_gpus(name):
    for table in suite(name).tables:
        for recipe in (table.pairs[0].recipe, table.pairs[0].teacher_recipe):
            assert params().recipes[recipe].runtime.gpus >= 1


def test_every_data_set_has_a_colour_for_each_class():
    for name in ("voc2012", "cityscapes", "ade20k", "cocostuff10k", "cocostuff164k", "pascal-context", "coco2017"):
        dataset = params().datasets[name]
        colours = palette_of(dataset)
        assert len({tuple(colour) for colour in colours}) == len(dataset.classes), name


def resolved(name: str, table):
    return published.resolve(name, table, ROOT / "params" / "published")


# --- paper-smoke -----------------------------------------------------------------------------------------------------


@cache
def smoke_runs():
    return expand.suite_runs(params(), suite("paper-smoke"))


def test_paper_smoke_has_every_table_and_row_of_the_paper_suites():
    wanted = {f"{name}-{table.name}": rows(table) for name in PAPERS for table in suite(name).tables}
    assert {table.name: rows(table) for table in suite("paper-smoke").tables} == wanted
    students = [run for run in smoke_runs().values() if run.teacher]
    assert len(students) == sum(map(len, wanted.values()))
    assert {t.name: len(t.published) for t in suite("paper-smoke").tables} == {
        f"{name}-{table.name}": len(table.published) for name in PAPERS for table in suite(name).tables
    }


def test_paper_smoke_takes_two_steps_on_two_images_and_no_gpu():
    for run in smoke_runs().values():
        recipe, data = run.training.recipe, run.training.data
        assert recipe.steps == 2 and recipe.batch <= 2 and recipe.precision == "float32"
        assert data.images == 2 and run.training.model.pretrained == "none"
        assert run.runtime.gpus == 0 and run.files in ("cityscapes", "ade20k", "pascal-context", "voc2012",
                                                          "cocostuff10k", "coco2017")  # fmt: skip
        assert data.size or run.evaluation.resize


@pytest.mark.parametrize(("dataset", "short", "longest"), [("ade20k", 512, 2048), ("pascal-context", 520, 520)])
def test_images_have_the_size_that_mmsegmentation_gives_them(dataset, short, longest):
    """In training and in evaluation; those of Cityscapes are shown as they are."""
    wanted = Resize(short_sides=[short], max_long_side=longest)
    for run in expand.suite_runs(params(), suite("bpkd")).values():
        for part in (run.training.recipe.view, run.evaluation):
            assert part.resize == {dataset: wanted}.get(run.dataset, part.resize)
            assert bool(part.resize) == (run.dataset != "cityscapes")


def test_what_is_not_replaced_is_as_the_suite_says():
    key = "semantic/bcd-seg.voc2012/pspnet-r18-from-pspnet-r101/cirkd/s0"
    plain = expand.suite_runs(params(), suite("bcd-seg"))[key.replace("bcd-seg.", "")].training
    small = smoke_runs()[key].training
    assert small.terms == plain.terms and small.model == plain.model.model_copy(update={"pretrained": "none"})
    assert (small.recipe.lr, small.recipe.view.scale) == (plain.recipe.lr, plain.recipe.view.scale)
    assert small.data.classes == plain.data.classes


# fmt: off
MISTAKES = [  # what stands in paper-smoke.yaml, what is written instead, what the message must say
    ("recipes.*.steps: 2", "recipes.*.steps: two", ["paper-smoke.yaml: set.recipes.", "steps", "valid integer"]),
    ("recipes.*.steps: 2", "recipes.*.stepz: 2", ["set.recipes.", "stepz", "did you mean 'steps'"]),
    ("recipes.*.steps: 2", "recipe.*.steps: 2", ["set.recipe.*.steps", "datasets, models, recipes, tables"]),
    ("recipes.coco-*.view.resize", "recipes.cocoa-*.view.resize", ["set.recipes.cocoa-*", "concerns nothing"]),
    ("tables.*.seeds: 1", "tables.*.seeds: 0", ["set.tables.bpkd-cityscapes-psp", "seeds", "or equal to 1"]),
    ("of: [bpkd,", "of: [bpkdd,", ["bpkdd.yaml does not exist", "'bpkd'"]),
    ("of: [bpkd,", "of: [paper-smoke, bpkd,", ["made of itself"]),
    ("of: [bpkd, bcd-seg, coco]", "of: []", ["a suite needs tables"]),
]
# fmt: on


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES)
def test_a_mistake_in_of_or_set_is_named(project, old, new, said):
    edit(project, "suites/paper-smoke.yaml", old, new)
    with pytest.raises(UserError) as error:
        smoke = load_suite("paper-smoke", project / "params")
        expand.suite_runs(load_params(project / "params"), smoke)
    for part in said:
        assert part in str(error.value), str(error.value)


def test_an_entry_for_several_published_numbers_keeps_its_mistakes(project):
    edit(project, "suites/bpkd.yaml", "cwd: CWD, bpkd: BPKD}", "cwd: CWDD, bpkd: BPKD}")
    table = load_suite("bpkd", project / "params").tables[0]
    with pytest.raises(UserError, match="cityscapes-psp.published.*no line of .* 'CWDD'"):
        published.resolve("bpkd", table, project / "params" / "published")
    edit(project, "suites/bpkd.yaml", "metrics: [miou, macc], csv", "metrics: miou, csv")
    with pytest.raises(UserError, match=r"published\[\d+\].metrics: unknown key; did you mean 'metric'"):
        load_suite("bpkd", project / "params")


# --- the optimiser ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "recipe"), [("segformer-b0", "segformer-ade20k"), ("upernet-swin-t", "upernet-swin-ade20k")]
)
def test_transformers_train_as_their_authors_do(model, recipe):
    """The groups of mmsegmentation's `custom_keys`: in its models and ours, a LayerNorm is a norm, a BatchNorm bn."""
    torch.manual_seed(0)
    student = build(params().models[model].model_copy(update={"pretrained": "none"}), 3)
    modules = dict(student.named_modules())
    groups = make_optimizer(student, params().recipes[recipe]).param_groups
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    seen = 0
    for group in groups:
        for name in (names[id(parameter)] for parameter in group["params"]):
            norm = isinstance(modules[name.rpartition(".")[0]], torch.nn.LayerNorm)
            free = norm or name.endswith("relative_position_bias_table")
            assert group["weight_decay"] == (0.0 if free else 0.01), name
            assert group["lr_factor"] == (10.0 if name.startswith("head.") and "segformer" in model else 1.0), name
            seen += 1
    assert seen == len(names)


def test_the_longest_word_decides_and_others_are_plain():
    student = torch.nn.ModuleDict({"head": torch.nn.ModuleDict({"classifier": torch.nn.Linear(2, 2)})})
    student["norm"] = torch.nn.Linear(2, 2, bias=False)
    groups = parameter_groups(student, {"head": 10.0, "head.classifier.bias": 2.0}, ["bias"])
    assert {key: len(found) for key, found in groups.items()} == {(10.0, True): 1, (2.0, False): 1, (1.0, True): 1}
    other = torch.nn.Parameter(torch.zeros(3))
    recipe = warm(lr_factors={"head": 10.0})
    found = make_optimizer(student, recipe, [other]).param_groups
    assert [group["lr_factor"] for group in found] == [10.0, 1.0]
    assert any(parameter is other for parameter in found[1]["params"])
    assert len(make_optimizer(student, warm()).param_groups) == 1  # recipes from before there were words


@pytest.mark.parametrize("field", [{"lr_factors": {"haed": 10.0}}, {"no_decay": ["haed"]}])
def test_a_word_in_no_name_is_an_error(field):
    with pytest.raises(UserError, match=f"{next(iter(field))}: no parameter of this model has 'haed'.*such as weight"):
        make_optimizer(torch.nn.Linear(1, 1), warm(**field))


def test_addresses_of_runs_without_words_are_as_before():
    """Words of the optimiser are younger than the first runs: they stand in the JSON only where there are any."""
    training = smoke_runs()["semantic/bpkd.cityscapes/pspnet-r18-from-pspnet-r101/none/s0"].training
    assert not {"lr_factors", "no_decay"} & training_json(training)["recipe"].keys()
    with_words = replace(training, recipe=warm(no_decay=["norm"]))
    assert training_json(with_words)["recipe"]["no_decay"] == ["norm"]
