"""The Slurm profile on a real Slurm; skipped where there is none. docs/results/scale.md says how one node runs it."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.project import run

from bcd.runs import store

SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
TEACHER = "results/smoke/teachers/semantic/scenes-smoke/smoke-teacher/none/s0.json"
STEPS = 300


def slurm_answers() -> bool:
    if not shutil.which("sbatch"):
        return False
    try:
        states = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return False
    return bool({"idle", "mix", "alloc"} & set(states.stdout.split()))


@pytest.mark.skipif(not slurm_answers(), reason="no Slurm with a usable node here")
def test_a_cancelled_job_is_submitted_again_and_continues(project):
    path = project / "params" / "recipes.yaml"
    head, found, rest = path.read_text().partition("\nsmoke:\n")
    rest = rest.replace("steps: 2\n", f"steps: {STEPS}\n", 1)
    rest = rest.replace("{checkpoint_every: 1}", "{checkpoint_every: 100000, mem_mb: 1234, minutes: 17}", 1)
    path.write_text(head + found + rest)

    command = [SNAKEMAKE, "--profile", "workflow/profiles/slurm", "--config", "suite=smoke",
               "--slurm-init-seconds-before-status-checks", "2", TEACHER]  # fmt: skip
    process = subprocess.Popen(command, cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in process.stdout:
        if submitted := re.search(r"submitted with SLURM jobid (\d+)", line):
            break
    while not list(project.glob("results/store/*/history.jsonl")):
        assert process.poll() is None
        time.sleep(0.1)
    asked = run("scontrol", "show", "job", submitted[1], cwd=project).stdout
    assert "TimeLimit=00:17:00" in asked and "mem=1234M" in asked and "Requeue=1" in asked
    run("scancel", submitted[1], cwd=project)
    said = process.stdout.read()
    assert process.wait() == 0, said
    assert "Trying to restart" in said
    record = store.record(project / "results" / "store" / store.read_json(project / TEACHER)["store"])
    assert (record["steps"], record["resumes"]) == (STEPS, 1)
