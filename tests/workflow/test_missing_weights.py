"""A file of initial weights that is not here, or does not fit, is said before anything trains, and by `bcd plan`."""

import torch
from safetensors.torch import save_file
from support.project import run


def test_a_missing_file_stops_snakemake_before_the_teacher_trains(project):
    path = project / "params" / "models.yaml"
    path.write_text(path.read_text().replace("smoke-student: {", "smoke-student: {pretrained: weights/x.pth, "))
    planned = run("python", "-m", "bcd.cli", "plan", "--suite", "smoke", cwd=project).stdout
    said = "weights/x.pth does not exist, from which the model 'smoke-student' starts"
    assert said in planned
    done = run("snakemake", "--cores", "1", "--config", "suite=smoke", cwd=project, check=False)
    assert done.returncode != 0 and not (project / "results" / "store").exists()
    assert said in done.stdout
    run("snakemake", "--cores", "1", "data", "--config", "suite=smoke", cwd=project)  # needs no weights


def test_a_file_that_does_not_fit_stops_snakemake_before_the_teacher_trains(project):
    path = project / "params" / "models.yaml"
    path.write_text(path.read_text().replace("smoke-student: {", "smoke-student: {pretrained: weights/x.safetensors, "))
    (project / "weights").mkdir()
    save_file({"backbone.stem.conv.weight": torch.zeros(1)}, project / "weights" / "x.safetensors")
    planned = run("python", "-m", "bcd.cli", "plan", "--suite", "smoke", cwd=project).stdout
    said = "the model 'smoke-student' of params/models.yaml: weights file weights/x.safetensors lacks"
    assert planned.count(said) == 1
    done = run("snakemake", "--cores", "1", "--config", "suite=smoke", cwd=project, check=False)
    assert done.returncode != 0 and not (project / "results" / "store").exists()
    assert said in done.stdout
