# Tables, figures, panels and MLflow, from the runs' small JSON files and the store.
rule table:
    input:
        run_files(RUNS.values()),
    output:
        multiext(f"{OUT}/tables/{{table}}", ".md", ".tex", ".csv", ".json"),
        f"{OUT}/figures/{{table}}.png",
    params:
        suite=SUITE,
        description=SUITE_PARAMS.model_dump(),
    log:
        f"{OUT}/logs/table-{{table}}.log",
    wildcard_constraints:
        table="|".join(TABLES),
    shell:
        "bcd tables --suite {params.suite} --table {wildcards.table} > {log} 2>&1"


rule panels:
    input:
        run_files(RUNS.values()),
    output:
        f"{OUT}/figures/{{table}}-panels.png",
    params:
        suite=SUITE,
        panels=SUITE_PARAMS.panels.model_dump(),
    log:
        f"{OUT}/logs/panels-{{table}}.log",
    wildcard_constraints:
        table="|".join(TABLES),
    shell:
        "bcd panels --suite {params.suite} --table {wildcards.table} > {log} 2>&1"


rule tables:
    input:
        expand(f"{OUT}/tables/{{table}}.{{kind}}", table=TABLES, kind=["md", "tex", "csv", "json"]),
        expand(f"{OUT}/figures/{{table}}.png", table=TABLES),
        expand(f"{OUT}/figures/{{table}}-panels.png", table=TABLES),


# A dead tracking server is reported in the output, never an error: `bcd track --sync` repairs it later.
rule track:
    input:
        run_files(RUNS.values()),
    output:
        f"{OUT}/tracking.json",
    params:
        suite=SUITE,
    log:
        f"{OUT}/logs/track.log",
    shell:
        "bcd track --sync --suite {params.suite} > {log} 2>&1"
