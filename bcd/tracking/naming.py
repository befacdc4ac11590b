"""What runs are called in MLflow, and what their names say of them.

A list of runs cuts a name at its end, and runs of a suite differ in method and seed: so these come first.
"""

from __future__ import annotations

from dataclasses import dataclass

from bcd.errors import counted

TEACHER = "teacher"  # in the place of a method, which cannot have this name


@dataclass(frozen=True)
class RunName:
    """A run key in its parts.

    pair        `<student>-from-<teacher>`, or a teacher's model
    method      `teacher` for a teacher
    repetition  counts the seeds of a method from 0
    settings    those of `--set`, "" without
    """

    task: str
    dataset: str
    pair: str
    method: str
    repetition: str
    settings: str = ""

    @classmethod
    def of(cls, key: str) -> RunName:
        """The parts of the key of a run in PyTorch."""
        base, _, settings = key.partition("?")
        task, dataset, pair, method, repetition = base.split("/")
        method = method if "-from-" in pair else TEACHER
        return cls(task, dataset, pair, method, repetition.removeprefix("s"), settings)

    @property
    def is_teacher(self) -> bool:
        """Whether it is a teacher's."""
        return self.method == TEACHER

    @property
    def group(self) -> str:
        """What the seeds of one method have in common."""
        return f"{self.task}/{self.dataset}/{self.pair}/{self.method}"

    @property
    def shown(self) -> str:
        """The name of the MLflow run: `cwd s0 semantic scenes light-student-from-light-teacher`."""
        return self._named(f"s{self.repetition}")

    @property
    def shown_superseded(self) -> str:
        """Its name once another run has taken its place."""
        return self._named(f"s{self.repetition} (superseded)")

    def mean_of(self, seeds: int) -> str:
        """The name of the MLflow run that its seeds are the children of."""
        return self._named(f"mean of {counted(seeds, 'seed')}")

    @property
    def params(self) -> dict[str, str]:
        """What runs are grouped and filtered by, the same for all seeds of a method."""
        return {"method": self.method, "dataset": self.dataset, "pair": self.pair, "task": self.task}

    def _named(self, what: str) -> str:
        return f"{self.method} {what} {self.task} {self.dataset} {self.pair}{self.settings and f' {self.settings}'}"
