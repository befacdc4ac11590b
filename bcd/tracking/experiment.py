"""What MLflow shows of a suite as a whole: its description, and the views of its runs that MLflow offers by name."""

from __future__ import annotations

import json
from typing import Any

from bcd.config.schema.suites import Suite

VIEW = "bcd"  # the name of our view in MLflow's addresses
MOST_METRICS = 6  # columns of metrics that fit beside a name
HOW_TO_READ = """\
Each *mean of ... seeds* holds the means over the seeds of one method; open it for the seeds. Teachers stand apart.

- The menu *Views* has the means alone, and the students by method; the chart view draws bars of the main metrics.
- Search for `params.role = 'mean'`, `'student'` or `'teacher'`; group by `method`, `dataset`, `pair` or `task`.
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


def views(suite: Suite) -> dict[str, tuple[str, dict[str, Any]]]:
    """Address -> name and state of each view of the list of runs that MLflow's menu *Views* offers."""
    main = list(dict.fromkeys(metric for table in suite.tables for metric in table.main_metrics))[:MOST_METRICS]
    gaps = [f"gap_closed/{name}" for name in main]
    columns = ["params.`method`", *(f"metrics.`{name}`" for name in main + gaps)]
    columns += [f"params.`{name}`" for name in ("dataset", "pair", "task", "repetition", "labels")]
    state = {
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", *columns, "runDateAndNestInfo", "duration"],
        "columnWidths": {"attributes.`Run Name`": 280, "params.`method`": 100},
        "runsHiddenMode": "SHOW_ALL",  # charts show ten runs otherwise
        "chartsSearchFilter": f"^({'|'.join(main + gaps)})$",
    }
    students = {
        "searchFilter": "params.role = 'student' and tags.`bcd.superseded` IS NULL",
        "orderByKey": "params.`method`",  # by the time of creation MLflow shows the parents of what it finds, too
        "orderByAsc": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "method"}]},
    }
    return {
        VIEW: ("Means and their seeds", state),
        f"{VIEW}-means": ("Means", state | {"searchFilter": "params.role = 'mean'"}),
        f"{VIEW}-students": ("Students by method", state | students),
    }


def tags(suite: Suite) -> dict[str, str]:
    """The tags of a suite's experiment."""
    found = {"mlflow.note.content": note(suite)}
    for key, (name, state) in views(suite).items():
        view = {"name": name, "createdAt": 0, "state": json.dumps(state)}
        found[f"mlflow.sharedViewState.{key}"] = json.dumps(view)
    return found


def address(experiment: str | None) -> str:
    """The part of an address that opens the runs of an experiment, by its id; None for the list of experiments.

    Without `workflowType` MLflow opens its pages about traces of language models.
    """
    if experiment is None:
        return "#/experiments?workflowType=machine_learning"
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
