# Tables, figures, panels, the page and MLflow, from the runs' small JSON files and the store.
rule table:
    input:
        lambda wildcards: run_files(TABLE_RUNS[wildcards.table]),
    output:
        multiext(f"{OUT}/tables/{{table}}", ".md", ".tex", ".json"),
        report(
            f"{OUT}/tables/{{table}}.csv",
            caption="../report/table.rst",
            category=SUITE,
            labels={"table": "{table}", "what": "numbers"},
        ),
        report(
            f"{OUT}/figures/{{table}}.png",
            caption="../report/figure.rst",
            category=SUITE,
            labels={"table": "{table}", "what": "figure"},
        ),
    log:
        f"{OUT}/logs/table-{{table}}.log",
    wildcard_constraints:
        table="|".join(TABLE_RUNS),
    localrule: True
    params:
        suite=SUITE,
        table=lambda wildcards: TABLE_PARAMS[wildcards.table],
    message:
        "table {wildcards.table}"
    shell:
        "bcd tables --suite {params.suite:q} --table {wildcards.table:q} > {log:q} 2>&1"


rule panels:
    input:
        lambda wildcards: run_files(TABLE_RUNS[wildcards.table]),
    output:
        report(
            f"{OUT}/figures/{{table}}-panels.png",
            caption="../report/panels.rst",
            category=SUITE,
            labels={"table": "{table}", "what": "panels"},
        ),
    log:
        f"{OUT}/logs/panels-{{table}}.log",
    wildcard_constraints:
        table="|".join(TABLE_RUNS),
    localrule: True
    params:
        suite=SUITE,
        panels=lambda wildcards: TABLE_PANELS[wildcards.table],
    message:
        "panels of table {wildcards.table}"
    shell:
        "bcd panels --suite {params.suite:q} --table {wildcards.table:q} > {log:q} 2>&1"


rule tables:
    input:
        expand(
            f"{OUT}/tables/{{table}}.{{kind}}",
            table=TABLE_RUNS,
            kind=["md", "tex", "csv", "json"],
        ),
        expand(f"{OUT}/figures/{{table}}.png", table=TABLE_RUNS),
        expand(f"{OUT}/figures/{{table}}-panels.png", table=TABLE_RUNS),
    message:
        f"tables of suite {SUITE}"


rule report:
    input:
        expand(f"{OUT}/tables/{{table}}.json", table=TABLE_RUNS),
    output:
        report(
            f"{OUT}/report.html",
            caption="../report/page.rst",
            category=SUITE,
            labels={"table": "all", "what": "page"},
        ),
    log:
        f"{OUT}/logs/report.log",
    localrule: True
    params:
        suite=SUITE,
    message:
        f"page of suite {SUITE}"
    shell:
        "bcd report --suite {params.suite:q} > {log:q} 2>&1"


# What DVC compares: it wants files that hold a few numbers.
rule summary:
    input:
        expand(f"{OUT}/tables/{{table}}.json", table=TABLE_RUNS),
    output:
        f"{OUT}/metrics.json",
        f"{OUT}/main.csv",
    log:
        f"{OUT}/logs/summary.log",
    localrule: True
    params:
        suite=SUITE,
    message:
        f"summary of suite {SUITE}"
    shell:
        "bcd summary --suite {params.suite:q} > {log:q} 2>&1"


# A dead tracking server is reported in the output, never an error: `bcd track --sync` repairs it later.
rule track:
    input:
        run_files(RUNS.values()),
    output:
        f"{OUT}/tracking.json",
    log:
        f"{OUT}/logs/track.log",
    localrule: True
    params:
        suite=SUITE,
    message:
        "runs to MLflow"
    shell:
        "bcd track --sync --suite {params.suite:q} > {log:q} 2>&1"
