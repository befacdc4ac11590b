# Teachers and students: one rule for each group of runs that share data, teacher and seed.
for address, group in GROUPS.items():

    rule:
        name:
            rule_name("train", address)
        input:
            f"data/{group[0].files}/manifest.json",
            sorted(
                {
                    file
                    for run in group
                    if run.teacher
                    for file in run_files([run.teacher])
                }
            ),
        output:
            run_files(group),
        log:
            f"{OUT}/logs/{address}.log",
        # Teachers first, as their students wait for them; then what may take longest.
        priority: group[0].runtime.minutes * (1 if group[0].teacher else 10)
        threads: group[0].training.recipe.threads
        resources:
            gpu=group[0].runtime.gpus,
            cpus_per_task=cores(group[0]),
            mem_mb=group[0].runtime.mem_mb,
            runtime=group[0].runtime.minutes,
        params:
            suite=SUITE,
            runs=[run.key for run in group],
            # What the results depend on: Snakemake repeats the job when one of these changes.
            fingerprints=[run.fingerprint for run in group],
        message:
            f"train {address}: {', '.join(dict.fromkeys(run.method for run in group))}"
        shell:
            "workflow/scripts/launch.sh {resources.gpu} train --suite {params.suite:q} {params.runs:q} > {log:q} 2>&1"


# Said before a teacher is trained whose students could not start.
onstart:
    wanted = {
        str(file) for job in workflow.dag.needrun_jobs() for file in job.output
    }
    awaited = [run for run in RUNS.values() if str(run.file(SUITE)) in wanted]
    for unfit in (missing_weights, unfit_data, unfit_weights):
        if said := unfit(awaited):
            raise WorkflowError(said[0])
    BUILDING.start(
        jobs_to_do(SUITE, GROUPS, wanted),
        total=len(list(workflow.dag.needrun_jobs())),
        cores=workflow.resource_settings.cores,
    )


rule teachers:
    input:
        run_files(run for run in RUNS.values() if not run.teacher),
    message:
        f"teachers of suite {SUITE}"


rule students:
    input:
        run_files(run for run in RUNS.values() if run.teacher),
    message:
        f"students of suite {SUITE}"
