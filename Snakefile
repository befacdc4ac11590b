# Every table of one suite: `snakemake`, or `snakemake --config suite=NAME` (names: params/suites/).
# One job per group of runs; `bcd` does the work and keeps its progress in results/store, which no rule declares.
from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/tables.smk"


rule all:
    input:
        rules.tables.input,
        rules.track.output,
    default_target: True
