# Datasets: fetched or generated once; the manifest is the edge.
for files in sorted({run.files for run in RUNS.values()}):

    rule:
        name:
            rule_name("data", files)
        input:
            # Every target needs data, so this is asked whenever a DAG is built.
            lambda wildcards: make_again(workflow, OUTDATED),
        output:
            # Kept when the rule runs again: a dataset that is there is only looked at.
            update(f"data/{files}/manifest.json"),
        log:
            f"{OUT}/logs/data-{files}.log",
        localrule: True
        resources:
            mem_mb=1000,
        params:
            dataset=files,
            request=PARAMS.datasets[files].model_dump(
                include={
                    "format",
                    "archives",
                    "folder",
                    "masks",
                    "generator",
                    "splits",
                    "classes",
                    "things",
                    "skip_annotations",
                }
            ),
        message:
            f"dataset {files}"
        shell:
            "bcd fetch {params.dataset:q} > {log:q} 2>&1"


rule data:
    input:
        sorted({f"data/{run.files}/manifest.json" for run in RUNS.values()}),
    output:
        f"{OUT}/data.json",
    log:
        f"{OUT}/logs/data.log",
    localrule: True
    message:
        "hashes of the datasets"
    shell:
        "sha256sum {input:q} > {output:q} 2> {log:q}"
