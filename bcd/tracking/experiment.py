"""What MLflow shows of a suite as a whole: its description, and the columns with which its list of runs opens."""

from __future__ import annotations

import json
from typing import Any

from bcd.config.schema.suites import Suite

VIEW = "bcd"  # the name of our view in MLflow's addresses
MOST_METRICS = 6  # columns of metrics that fit beside a name
HOW_TO_READ = """\
Each *mean of ... seeds* holds the means over the seeds of one method; open it for the seeds. Teachers stand apart.

- Show one kind of run with `params.role = 'mean'`, `'student'` or `'teacher'` in the search field, then choose the
  chart view for bars. Group by `method`, `dataset`, `pair` or `task`.
- `miou`, `ap` and their like are of the evaluation, in percent; `sd/...` is a standard deviation over seeds.
- `teacher/...` is the teacher's value. `gap_closed/...` is (student - none) / (teacher - none), with the student `none`
  of the same seed: 0 is training without a teacher, 1 is the teacher.
- `chip/...` is an exported file's; `train/...` are the curves of training.
"""


def note(suite: Suite) -> str:
    """The description of a suite's experiment, in Markdown."""
    folder = f"results/{suite.name}"
    tables = "\n".join(f"- `{folder}/tables/{table.name}.md`: {table.caption.strip()}" for table in suite.tables)
    return (
        f"{suite.description.strip()}\n\n**How to read it.** {HOW_TO_READ}\n"
        f"**Results to cite** are the tables, of which this is only a view. In the project's folder:\n\n{tables}\n"
        f"- `{folder}/report.html`: all of it on one page.\n"
    )


def view(suite: Suite) -> dict[str, Any]:
    """The state of MLflow's list of runs: its columns, and charts that show more than ten runs."""
    main = list(dict.fromkeys(metric for table in suite.tables for metric in table.main_metrics))[:MOST_METRICS]
    gaps = [f"gap_closed/{metric}" for metric in main]
    columns = [f"params.`{name}`" for name in ("method", "repetition", "dataset", "task")]
    columns += [f"metrics.`{name}`" for name in (*main, *gaps)]
    return {"selectedColumns": columns, "runsHiddenMode": "SHOW_ALL"}


def tags(suite: Suite) -> dict[str, str]:
    """The tags of a suite's experiment."""
    return {"mlflow.note.content": note(suite), f"mlflow.sharedViewState.{VIEW}": json.dumps(view(suite))}


def address(experiment: str | None) -> str:
    """The part of an address that opens the runs of an experiment, by its id; None for the list of experiments.

    Without `workflowType` MLflow opens its pages about traces of language models.
    """
    if experiment is None:
        return "#/experiments?workflowType=machine_learning"
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
