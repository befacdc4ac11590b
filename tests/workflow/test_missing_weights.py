"""A file of initial weights that is not here is said before anything trains, and by `bcd plan`."""

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
