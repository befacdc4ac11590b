"""Params: what is wrong in a file is said with file, field and the nearest valid spelling."""

import re
from pathlib import Path

import pytest

from bcd.config.load import load_params, parse_method, wrong_entries
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.runs import expand
from bcd.runs.resolve import overridden

PARAMS = ("datasets", "models", "methods", "recipes")


def edit(project, file: str, old: str, new: str) -> None:
    path = project / "params" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def load(project, suite: str = "smoke"):
    """The runs of a suite; UserError for what is wrong with it, or with any entry of params."""
    params = load_params(project / "params")
    if wrong := wrong_entries(params):
        raise UserError(wrong[0])
    return expand.suite_runs(params, load_suite(suite, project / "params"))


# fmt: off
MISTAKES = [  # file, what stands there, what is written instead, what the message must say
    ("recipes.yaml", "weight_decay: 0.01", "weight_decai: 0.01", ["recipes.yaml", "weight_decay"]),
    ("recipes.yaml", "lr: 0.005", "lr: 5-3", ["scenes-teacher: lr", "valid number"]),
    ("recipes.yaml", "  steps: 2\n", "  steps: '2'\n", ["smoke-detector: steps", "valid integer"]),
    ("recipes.yaml", "  steps: 2\n", "  steps: -1\n", ["smoke-detector: steps", "greater than or equal to 0"]),
    ("recipes.yaml", "crop: [40, 32]", "crop: [40, 32], resize: {short_sides: [8, 9], max_long_side: 9}",
     ["smoke: view", "resize.short_sides", "scale"]),
    ("recipes.yaml", "  steps: 2\n", "  steps: 0\n", ["no steps", "'smoke-retinanet'", "pretrained"]),
    ("recipes.yaml", "momentum: 0.9", "momentum: 9", ["momentum", "less than or equal to 1"]),
    ("recipes.yaml", "crop: [64, 64]", "crop: [64]", ["view.crop", "at least 2 are needed"]),
    ("recipes.yaml", "name: sgd", "name: sdg", ["optimizer.name", "did you mean 'sgd'"]),
    ("recipes.yaml", "runtime: {checkpoint_every", "runtime: {checkpoint_evry", ["checkpoint_every"]),
    ("methods.yaml", "term: kd, taps: [logits]", "term: kd, taps: [logit]", ["methods.yaml", "kd", "'logits'"]),
    ("methods.yaml", "temperature: 1.0", "temperatur: 1.0", ["terms.kd.temperatur", "'temperature'"]),
    ("methods.yaml", "term: cwd", "term: cdw", ["pbd: terms.cdw.term", "'cwd'"]),
    ("methods.yaml", "cwd:\n", "kd:\n", ["'kd' stands twice"]),
    ("datasets.yaml", "labelled: 150", "labelled: 1500", ["scenes-few", "1200"]),
    ("datasets.yaml", "variant_of: scenes\n", "variant_of: scene\n", ["variant_of", "'scenes'"]),
    ("suites/smoke.yaml", "methods: [none, kd, cwd", "methods: [none, kd, cwdd", ["smoke.yaml", "'cwd'"]),
    ("suites/smoke.yaml", "methods: [none, bcd]", "methods: [bcd]", ["'none'"]),
    ("suites/smoke.yaml", "student: smoke-student", "student: smoke-studnt", ["'smoke-student'"]),
    ("suites/smoke.yaml", "recipe: smoke}", "recipe: smok}", ["'smoke'"]),
    ("suites/smoke.yaml", "main_metrics: [miou", "main_metrics: [mio", ["'mio' is no metric", "miou"]),
    ("suites/smoke.yaml", "metrics: [ap, ap_mask", "metrics: [ap, ap_maks", ["tables[3]", "'ap_maks'", "ap_mask"]),
    ("suites/smoke.yaml", "task: instance", "task: instanse", ["tables[3].task", "'instance'"]),
    ("suites/smoke.yaml", "recipe: smoke-detector}", "recipe: smoke}", ["recipe 'smoke'", "'resize'", "recipes.yaml"]),
    ("suites/smoke.yaml", "student: smoke-retinanet", "student: smoke-student", ["'smoke-student'", "'detection'"]),
    ("suites/smoke.yaml", "name: few-labels", "name: all-labels", ["two are called 'all-labels'"]),
    ("models.yaml", "detection: {levels", "detection: {lefels", ["detection.lefels", "'levels'"]),
]
# fmt: on


@pytest.mark.parametrize(("file", "old", "new", "said"), MISTAKES)
def test_a_mistake_is_named(project, file, old, new, said):
    edit(project, file, old, new)
    with pytest.raises(UserError) as error:
        load(project)
    for part in said:
        assert part in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


def test_a_method_without_terms_is_an_error_but_for_none():
    assert parse_method({"description": "d", "terms": []}, "none", "here").terms == []
    with pytest.raises(UserError, match="methods.yaml: kd: a method without terms"):
        parse_method({"description": "d", "terms": []}, "kd", "methods.yaml: kd")


@pytest.mark.parametrize("suite", sorted(path.stem for path in Path("params/suites").glob("*.yaml")))
def test_every_shipped_suite_resolves(project, suite):
    runs = load(project, suite)
    assert all(
        re.fullmatch(r"(semantic|detection|instance)/[\w.-]+/[\w.-]+/[\w.-]+(@[\w.-]+)?/s\d+", key) for key in runs
    )


def test_unknown_suite_names_the_nearest(project):
    with pytest.raises(UserError, match="did you mean 'camvid'"):
        load_suite("camvidd", project / "params")


def test_paired_runs_share_a_seed_and_nothing_else_does(project):
    runs = load(project, "scenes")
    by_group = expand.groups({key: run for key, run in runs.items() if run.teacher})
    seeds = [{run.training.seed for run in group} for group in by_group.values()]
    assert all(len(seed) == 1 for seed in seeds)
    assert len(set.union(*seeds)) == len(by_group)


def test_runtime_settings_do_not_change_a_run(project):
    before = {key: run.fingerprint for key, run in load(project).items()}
    edit(project, "recipes.yaml", "runtime: {checkpoint_every: 1}", "runtime: {checkpoint_every: 3, workers: 1}")
    assert {key: run.fingerprint for key, run in load(project).items()} == before


def test_one_weight_changes_its_method_only(project):
    before = {key: run.fingerprint for key, run in load(project).items()}
    edit(
        project,
        "methods.yaml",
        "{term: posterior_boundary, taps: [logits], weight: ",
        "{term: posterior_boundary, taps: [logits], weight: 9",
    )
    changed = {key for key, run in load(project).items() if run.fingerprint != before[key]}
    assert {key.split("/")[3] for key in changed} == {"pbd"}


def test_a_teacher_setting_changes_distilled_students_and_not_the_plain_one(project):
    before = {key: run.fingerprint for key, run in load(project).items()}
    edit(project, "models.yaml", "widths: [8, 8, 16, 16]", "widths: [8, 16, 16, 16]")
    changed = {key for key, run in load(project).items() if run.fingerprint != before[key]}
    teacher, students = "semantic/scenes-smoke/smoke-teacher/none/s0", "-from-smoke-teacher/"
    distilled = {key for key in before if students in key and "/none/" not in key}
    assert changed == {teacher} | distilled


def test_overrides_are_checked_like_files(project):
    run = load(project)["semantic/scenes-smoke/smoke-student-from-smoke-teacher/kd/s0"]
    changed = overridden(run, {"recipe.lr": 0.02, "terms.kd.weight": 3.0, "terms.kd.temperature": 8})
    term = changed.training.terms[0]
    assert (changed.training.recipe.lr, term.weight, term.options["temperature"]) == (0.02, 3.0, 8)
    assert changed.fingerprint != run.fingerprint and changed.key != run.key
    wrong = {
        "recipe.lrr": (0.1, "'lr'"),
        "recip.lr": (0.1, "'recipe'"),
        "recipe.lr": ("x", "recipe: lr"),
        "recipe": (1, "write recipe.lr=0.02"),
        "seed": (-1, "seed: expected an integer from 0"),
        "terms.0.weight": (3.0, "no term of the method is called '0'; known: kd"),
        "terms.kd.temperature": ("hot", r"temperature.*'hot'"),
        "terms.kd.operator": ("affinity", "unknown key"),
        "terms.kd": ({}, "write <term>.<field>, such as kd.weight"),
    }
    for path, (value, said) in wrong.items():
        with pytest.raises(UserError, match=said):
            overridden(run, {path: value})


def test_a_setting_of_another_task_or_optimiser_is_an_error(project):
    runs = load(project)
    detector = runs["detection/scenes-smoke/smoke-retinanet-from-smoke-retinanet/none/s0"]
    segmentor = runs["semantic/scenes-smoke/smoke-student-from-smoke-teacher/none/s0"]
    wrong = [
        (detector, "recipe.view.crop", [8, 8], "view.crop: unknown key"),
        (detector, "recipe.view.photometric", True, "view.photometric: unknown key"),
        (detector, "recipe.unlabelled_batch", 2, "unlabelled_batch: unknown key"),
        (detector, "model.dropout", 0.1, "dropout: unknown key"),
        (segmentor, "recipe.view.pad", 7, "view.pad: unknown key"),
        (segmentor, "recipe.pad", 7, "pad: unknown key"),
        (segmentor, "recipe.crop", [8, 8], "crop: unknown key; did you mean 'view.crop'"),
        (segmentor, "recipe.runtime.validation", {"evry": 2}, "validation.evry: unknown key; did you mean 'every'"),
        (segmentor, "recipe.optimizer.momentum", 0.5, "optimizer.momentum: unknown key"),
        (segmentor, "model.detection.convs", 1, "'detection' does not exist"),
    ]
    for run, path, value, said in wrong:
        with pytest.raises(UserError, match=said):
            overridden(run, {path: value})


def test_a_file_of_weights_may_lie_in_a_folder(project):
    run = load(project)["semantic/scenes-smoke/smoke-teacher/none/s0"]
    changed = overridden(run, {"model.pretrained": "weights/some.pth"})
    assert changed.group == run.group and changed.file("smoke").parent.name == "none"


@pytest.mark.parametrize(
    ("setting", "value", "trains_otherwise"),
    [
        ("sliding", {"crop": [32, 32], "stride": [16, 16]}, False),
        ("view.resize", {"short_sides": [32], "max_long_side": 64}, True),
    ],
)
def test_an_override_of_how_images_are_shown_counts_in_evaluation(project, setting, value, trains_otherwise):
    run = load(project)["semantic/scenes-smoke/smoke-student-from-smoke-teacher/kd/s0"]
    changed = overridden(run, {f"recipe.{setting}": value})
    name = setting.rpartition(".")[2]
    shown = getattr(changed.evaluation, name).model_dump()
    assert shown == value and getattr(run.evaluation, name) is None
    assert (changed.training.hash != run.training.hash) == trains_otherwise
    lr = overridden(changed, {"recipe.lr": 0.02})
    assert lr.evaluation == changed.evaluation


def test_a_table_holds_what_its_rows_are_compared_with(project):
    edit(project, "suites/smoke.yaml", "methods: [none, bcd]", "methods: [none, bcd]\n    baseline: kd")
    with pytest.raises(UserError, match=r"tables\[1\].*needs the method 'kd'"):
        load(project)


def test_a_suite_that_chooses_weights_has_seeds_of_its_own(project):
    params, suite = load_params(), load_suite("smoke")
    usual, chosen = (
        {run.repetition: run.training.seed for run in expand.suite_runs(params, one).values() if run.teacher}
        for one in (suite, suite.model_copy(update={"first_seed": 10}))
    )
    assert set(chosen) == {10, 11} and not set(usual.values()) & set(chosen.values())


def variant(project, text: str) -> list:
    """The terms of a changed method of the table few-labels."""
    edit(project, "suites/smoke.yaml", "methods: [none, bcd]", f"methods: [none, bcd, {text}]")
    key = "semantic/scenes-smoke-few/smoke-student-from-smoke-teacher/mine/s0"
    return [(term.term, term.weight) for term in load(project)[key].training.terms]


def test_a_variant_changes_terms_by_name_adds_some_or_says_all(project):
    text = (
        "{name: mine, base: cwd-feature, set: {kd.weight: 2.0, cwd/1.weight: 7.0}, "
        "add: [{term: at, taps: [neck], weight: 1.0}]}"
    )
    assert variant(project, text) == [("kd", 2.0), ("cwd", 50.0), ("cwd", 7.0), ("at", 1.0)]


def test_a_variant_may_say_all_terms(project):
    text = "{name: mine, base: bckd, terms: [{term: at, taps: [neck], weight: 1.0}]}"
    assert variant(project, text) == [("at", 1.0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{name: mine, base: cwd-feature, set: {cwd.weight: 2.0}}", "has cwd/0 and cwd/1"),
        ("{name: mine, base: kd, set: {cwd.weight: 2.0}}", "no term of the method is called 'cwd'; known: kd"),
        ("{name: mine, base: kd, set: {terms.0.weight: 2.0}}", "no term of the method is called 'terms'"),
        ("{name: mine, base: kd, set: {kd.wait: 2.0}}", "wait: unknown key; did you mean 'weight'"),
        ("{name: mine, base: kd, set: {kd.weight: 1.0}, terms: []}", "'terms' says all terms"),
        ("{name: a/b, base: kd}", "cannot be a name"),
    ],
)
def test_a_mistake_in_a_variant_is_named(project, text, said):
    with pytest.raises(UserError, match=said):
        variant(project, text)


def test_a_table_has_no_row_twice(project):
    edit(project, "suites/smoke.yaml", "methods: [none, bcd]", "methods: [none, bcd, bcd]")
    with pytest.raises(UserError, match=r"tables\[1\].*the method 'bcd' stands twice"):
        load(project)
