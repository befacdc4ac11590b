# Every table of one suite: `snakemake`, or `snakemake --config suite=NAME` (names: params/suites/).
# One job per group of runs; `bcd` does the work and keeps its progress in results/store, which no rule declares.
from snakemake.utils import min_version

min_version("9.0")


# Only used with `--sdm apptainer`; the image must offer environment.yml's packages. Normally `make` installs the lock.
container: "docker://condaforge/miniforge3"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/tables.smk"


rule all:
    default_target: True
    input:
        rules.tables.input,
        rules.report.output,
        rules.summary.output,
        rules.track.output,
        rules.data.output,
        # The tables need them only where they are made anew; a run file that was deleted comes back all the same.
        rules.teachers.input,
        rules.students.input,
    message:
        f"suite {SUITE}"
