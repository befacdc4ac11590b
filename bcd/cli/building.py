"""What a terminal shows while Snakemake builds a suite: finished jobs, one line each, and below them what runs.

    19:04:11    7 of 41  train semantic/scenes/light-student-from-light-teacher/s0: none, cwd, bcd   1:24

      train semantic/scenes/light-student-from-light-teacher/s1: none, cwd, bcd    0:12  step 40/220, 3 learners, ...
    suite scenes: 7 of 41 jobs done, 2:06 so far, about 6 min left

It is a filter of Snakemake's own handler: what it shows itself is not printed, and everything else is, above it. After
Ctrl-C it also drops Snakemake's report of each job that was stopped, as an error with its log: one sentence says so.
Where stderr is no terminal nothing is changed, so logs of clusters and pipes hold Snakemake's lines.
"""

from __future__ import annotations

import atexit
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd.errors import UserError, harmless
from bcd.planning.cost import Rates, measured
from bcd.planning.remaining import Job, seconds_left
from bcd.runs.spec import RESULTS

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

# Snakemake names its events in `snakemake_interface_logger_plugins.common.LogEvent`; these are shown in our words.
REPLACED = ("job_info", "job_started", "job_finished", "progress", "run_info", "resources_info", "shellcmd")
CHATTER = ("Select jobs to execute...", "Using shell:", "Singularity containers:", "Elapsed time:")
# How it says that the user stops it, that a job was stopped by a signal, and how it ends then.
STOPPING = "Terminating processes on user request"
BY_A_SIGNAL = re.compile(r"returned non-zero exit status (130|143)\.$")
ENDING = ("Complete log(s):", "--keep-incomplete mode", "WorkflowError:\nAt least one job did not complete")
WIDE = 100  # columns from which on there is room for what jobs say
TAIL = 4000  # bytes of a job's log in which its last line is looked for
STEP = re.compile(r"step (\d+)/(\d+)")
TIME = re.compile(r"^\d\d:\d\d:\d\d ")


@dataclass(frozen=True)
class Running:
    """A job of Snakemake's that runs: its message, its log, and since when (`time.monotonic`)."""

    message: str
    log: Path
    since: float


class Building(logging.Filter):
    """The state of a build, told by the log records of Snakemake, and its picture on stderr."""

    def __init__(self, suite: str, results: Path = RESULTS) -> None:
        super().__init__()
        self.suite, self.results = suite, results
        self.jobs: Mapping[str, Job] = {}
        self.running: dict[int, Running] = {}
        self.took: dict[str, float] = {}
        self.done, self.total = 0, 0
        self.cores: int | None = None
        self.begin = time.monotonic()
        self.rates = Rates()
        self.handler: logging.StreamHandler[Any] | None = None
        self.live: Live | None = None
        self.stopping, self.failed = False, False

    def replace_lines(self, settings: Any) -> None:
        """From now on Snakemake does not print what `start` will show.

        settings: Snakemake's of its output. Nothing happens where stderr is no terminal, for a dry run, and for
        `--quiet all`.
        """
        if settings.dryrun or any(quiet.name == "ALL" for quiet in settings.quiet or ()):
            return
        handlers = logging.getLogger("snakemake.logging").handlers
        own = next((handler for handler in handlers if handler.name == "DefaultStreamHandler"), None)
        if isinstance(own, logging.StreamHandler) and own.stream is sys.stderr and sys.stderr.isatty():
            own.addFilter(self)
            self.handler = own

    def start(self, jobs: Mapping[str, Job], total: int, cores: int | None) -> None:
        """Show the build until `stop`.

        jobs: the training jobs that it has to do, by their address; total: how many jobs of any kind there are
        cores: how many it may keep busy at once, None for no limit
        """
        self.jobs, self.total, self.cores = jobs, total, cores
        self.begin = time.monotonic()
        if self.handler is None:
            return
        from rich.console import Console
        from rich.live import Live

        self._measure()
        console = Console(stderr=True, highlight=False, markup=False)
        self.live = Live(console=console, get_renderable=self.picture, refresh_per_second=1, transient=True)
        atexit.register(self.stop)
        self.live.start()
        # Snakemake's other lines go through `live`, too, which puts them above the picture.
        self.handler.setStream(sys.stderr)

    def stop(self) -> None:
        """Leave the terminal to others; called twice it does nothing."""
        if self.live and self.handler:
            self.live.stop()
            self.handler.setStream(sys.stderr)
            self.live = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Take what a record says; whether Snakemake is to print it."""
        event, said, text = str(getattr(record, "event", "")), record.__dict__, str(record.msg)
        self.stopping = self.stopping or text.startswith(STOPPING)
        if event == "job_info":
            log = Path(said["log"][0].split(" ")[0]) if said["log"] else Path()
            self.running[said["jobid"]] = Running(said["rule_msg"] or said["rule_name"], log, time.monotonic())
        elif event == "job_finished":
            self._finished(said["job_id"])
        elif event == "job_error":
            return self._failed(self.running.pop(said["jobid"], None))
        elif event == "progress":
            self.done = said["done"]
        if self.stopping and (BY_A_SIGNAL.search(text) or (text.startswith(ENDING) and not self.failed)):
            return False
        return event not in REPLACED and not text.startswith(CHATTER)

    def _failed(self, job: Running | None) -> bool:
        """Whether a job has failed, and was not just stopped by the user."""
        stopped = self.stopping and job is not None and _last_line(job.log).startswith("bcd: stopped ")
        self.failed = self.failed or not stopped
        return not stopped

    def _finished(self, number: int) -> None:
        job = self.running.pop(number, None)
        if job is None or self.live is None:
            return
        took = time.monotonic() - job.since
        if (address := self._address(job)) in self.jobs:
            self.took[address] = took
            self._measure()  # with the records that the job has just written
        count = f"{self.done + 1} of {self.total}"
        line = f"{time.strftime('%H:%M:%S')} {count:>10}  {harmless(job.message)}   {_clock(took)}"
        self.live.console.print(line, soft_wrap=True)

    def _measure(self) -> None:
        # A record that cannot be read is for the job to say that needs it.
        with suppress(UserError):
            self.rates = measured(self.results)

    def _address(self, job: Running) -> str:
        logs = self.results / self.suite / "logs"
        return job.log.relative_to(logs).with_suffix("").as_posix() if job.log.is_relative_to(logs) else ""

    def sentence(self) -> str:
        """How far the suite is."""
        running = {self._address(job): _share(_last_line(job.log)) for job in self.running.values()}
        left = seconds_left(self.jobs, self.took, running, self.cores, self.rates)
        rest = "the time left is not known yet" if left is None else f"about {_rounded(left)} left"
        if len(self.took) == len(self.jobs):
            rest = "only tables and pages left"
        so_far = _clock(time.monotonic() - self.begin)
        return f"suite {self.suite}: {self.done} of {self.total} jobs done, {so_far} so far, {rest}"

    def picture(self) -> RenderableType:
        """A line of each job that runs, with the last line of its log; then `sentence`."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(no_wrap=True, ratio=3)
        grid.add_column(no_wrap=True, justify="right", width=8)
        wide = self.live is None or self.live.console.width >= WIDE
        if wide:
            grid.add_column(no_wrap=True, ratio=2)
        for job in list(self.running.values()):
            cells = [f"  {job.message}", _clock(time.monotonic() - job.since), _last_line(job.log)]
            grid.add_row(*map(Text, cells if wide else cells[:2]))
        return Group(Text(), grid, Text(self.sentence(), style="bold"))


def _last_line(log: Path) -> str:
    """What a job has said last, without the time; empty before it has."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((harmless(TIME.sub("", line)) for line in reversed(lines) if line.strip()), "")


def _share(said: str) -> float:
    """The share of its steps that a training says it has done."""
    found = STEP.search(said)
    return int(found[1]) / max(1, int(found[2])) if found else 0.0


def _clock(seconds: float) -> str:
    """`0:12`, `12:40`, `2:05:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _rounded(seconds: float) -> str:
    """What is only estimated: `40 s`, `6 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else "{} h {} min".format(*divmod(round(minutes, -1), 60))
