"""The files that set a machine up agree with one another, and the commands teach."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from support.project import ROOT, in_terminal, run

BCD = str(Path(sys.executable).parent / "bcd")
LOCK = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements.lock").read_text(), re.M))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
CONDA_NAMES = {"pytorch": "torch"}


def test_the_lock_is_hashed_and_names_no_host():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    pins = re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]
    assert len(pins) == len(LOCK) and all("--hash=sha256:" in pin for pin in pins)


def test_the_same_pythons_everywhere():
    """What the package declares, what install.sh looks for, and what conda may take."""
    declared = re.findall(r":: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.M)
    script = (ROOT / "workflow/scripts/install.sh").read_text()
    first, last = (int(one.split(".")[1]) for one in (declared[0], declared[-1]))
    assert PROJECT["requires-python"] == f">=3.{first},<3.{last + 1}"
    assert f"(3, {first}) <= found <= (3, {last})" in script
    assert " ".join(f"python{one}" for one in reversed(declared)) in script
    assert f"python{PROJECT['requires-python']}" in CONDA


def test_conda_pins_are_the_locks():
    conda = [re.split("=+", entry) for entry in CONDA if isinstance(entry, str) and not re.search("[<>]", entry)]
    pip = [re.split("=+", entry) for entry in CONDA[-1]["pip"] if not entry.startswith("-")]
    free = {"pip", "detectron2"}
    pins = {name: rest for name, *rest in conda + pip if name not in free}
    assert pins == {name: [LOCK[CONDA_NAMES.get(name, name)]] for name in pins}
    # detectron2 is not in the lock, and setuptools is there at a version that detectron2 cannot use.
    assert "detectron2" in CONDA and "setuptools<81" in CONDA


def test_conda_has_every_direct_dependency():
    extras = PROJECT["optional-dependencies"]
    wanted = {re.split("[<>=]", d)[0] for d in PROJECT["dependencies"] + extras["suite"] + extras["dev"]}
    names = {re.split("[<>=]", e)[0] for e in [*CONDA[:-1], *CONDA[-1]["pip"]] if isinstance(e, str)}
    assert wanted <= {CONDA_NAMES.get(name, name) for name in names}


def test_the_lock_has_every_direct_dependency():
    """Of the base and of the extras that `make lock` names, which are those of the whole benchmark and its checks."""
    extras = re.findall(r"--extra ([a-z]+)", (ROOT / "Makefile").read_text())
    assert {"suite", "dev", "docs", "weights", "chip"} == set(extras)
    wanted = [*PROJECT["dependencies"], *(d for extra in extras for d in PROJECT["optional-dependencies"][extra])]
    assert {re.split("[<>=]", d)[0] for d in wanted} <= LOCK.keys()


def test_the_version_has_one_place():
    import bcd

    assert bcd.__version__ == version("bcd")


def test_the_hooks_are_the_lines_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lines = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1].split("\n\t")
    assert [hook["entry"] for hook in hooks] == [line.strip() for line in lines]


def test_setuptools_without_pkg_resources_is_told_in_one_sentence(monkeypatch):
    from bcd.errors import UserError
    from bcd.models.detection.detectron2_detector import build

    installed = ModuleType("detectron2")
    installed.__spec__ = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "detectron2", installed)
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    with pytest.raises(UserError, match="pip install 'setuptools<81'"):
        build(None, 3)


@pytest.mark.parametrize(
    "command", ["fetch", "plan", "train", "evaluate", "tables", "panels", "report", "track", "doctor"]
)
def test_every_command_explains_itself(command):
    assert "Usage" in run(BCD, command, "--help", cwd=ROOT).stdout


def test_help_and_planning_import_nothing_heavy():
    heavy = "('torch', 'mlflow', 'matplotlib', 'cv2')"
    light = "bcd.cli.entry, bcd.cli.main, bcd.config.load, bcd.runs.expand, bcd.planning.survey"
    code = f"import sys, {light}; print([m for m in {heavy} if m in sys.modules])"
    assert run(sys.executable, "-c", code, cwd=ROOT).stdout.strip() == "[]"


def test_doctor_reports_and_names_remedies(project):
    said = run(BCD, "doctor", cwd=project, BCD_MIRROR=str(project / "absent")).stdout
    assert "torch " in said and "cores" in said
    assert "missing: BCD_MIRROR" in said


def test_a_user_error_is_one_sentence_and_status_2(project):
    done = run(BCD, "fetch", "scnes", cwd=project, check=False)
    assert done.returncode == 2
    assert done.stdout == "bcd: params/datasets.yaml: 'scnes' is not defined; did you mean 'scenes'?\n"


def test_outside_a_project_the_remedy_is_named(tmp_path):
    done = run(BCD, "plan", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "run the command in the project's folder" in done.stdout


def test_plan_counts_runs_and_names_what_is_missing(project):
    said = run(BCD, "plan", "--suite", "smoke", cwd=project).stdout
    assert "31 runs in 9 jobs; 31 missing" in said


def test_readme_commands_exist():
    """Every `bcd` command, suite and file that the README names is there, or is made by a command above it."""
    text = (ROOT / "README.md").read_text()
    help_text = run(BCD, "--help", cwd=ROOT).stdout
    assert all(command in help_text for command in re.findall(r"^    bcd (\w+)", text, re.M))
    suites = set(re.findall(r"suite=([\w-]+)", text)) - set(re.findall(r"bcd new --data ([\w-]+)/", text))
    assert all((ROOT / f"params/suites/{suite}.yaml").exists() for suite in suites)
    assert all((ROOT / path).exists() for path in re.findall(r"\]\((docs/[\w./-]+|bcd/[\w./-]+)\)", text))


class Machine:
    """A project of install.sh alone, on a PATH of its own with pretended interpreters and a pretended uv."""

    TOOLS = ("sh", "cat", "sha256sum", "cut", "readlink", "awk", "rm", "mkdir", "ln", "touch")

    def __init__(self, folder: Path):
        self.bin = folder / "bin"
        self.project = folder / "my project é"
        self.bin.mkdir(parents=True)
        for tool in self.TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.program("df", "echo; echo fs 0 0 99999999 0 /")
        self.program(
            "uv",
            'if [ "$1" = venv ]; then mkdir -p "$5/bin"; ln -s "$4" "$5/bin/python"; touch "$5/pyvenv.cfg"; fi\n'
            'if [ "$2" = sync ]; then echo synced >&2; fi',
        )
        (self.project / "workflow/scripts").mkdir(parents=True)
        for part in ("workflow/scripts/install.sh", "requirements.lock", "pyproject.toml"):
            shutil.copy(ROOT / part, self.project / part)

    def program(self, name: str, body: str) -> Path:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def python(self, name: str, minor: int) -> Path:
        code = f"import sys; check = sys.argv.pop(1); sys.version_info = (3, {minor}, 0); sys._base_executable = '$0'"
        return self.program(name, f'exec "{sys.executable}" -c "{code}; exec(check)" "$2" "$3"')

    def shim(self, name: str) -> Path:
        return self.program(name, f"echo 'shims: {name}: command not found' >&2; exit 127")

    def install(self, *python: str, project: Path | None = None) -> subprocess.CompletedProcess:
        command = ("workflow/scripts/install.sh", ".venv", *python)
        return run(*command, cwd=project or self.project, check=False, PATH=str(self.bin))

    def chosen(self) -> str:
        return (self.project / ".venv/bin/python").readlink().name


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_install_takes_the_newest_python_that_works(machine):
    machine.shim("python3.14")
    machine.python("python3.13", 13)
    machine.python("python3.12", 12)
    machine.python("python3", 10)
    assert machine.install().returncode == 0
    assert machine.chosen() == "python3.13"
    again = machine.install()
    assert (again.returncode, again.stdout) == (0, "")


def test_install_takes_the_python_it_is_told_and_keeps_it(machine):
    machine.python("python3.13", 13)
    other = machine.python("other", 12)
    machine.install()
    assert "removing .venv" in machine.install(str(other)).stdout and machine.chosen() == "other"
    assert machine.install().stdout == machine.install(str(other)).stdout == ""


@pytest.mark.parametrize(
    ("minor", "said"),
    [
        (10, "'python3' is Python 3.10; install one of 3.11 to 3.14, or say make PYTHON=/path/to/python3"),
        (14, "'python3' has to compile one package and cannot; on Debian and Ubuntu: apt-get install gcc python3-dev"),
        (None, "'python3' does not start; install Python 3.11 to 3.14, or say make PYTHON=/path/to/python3"),
    ],
)
def test_a_python_that_does_not_fit_is_told_in_one_sentence(machine, minor, said):
    machine.shim("python3") if minor is None else machine.python("python3", minor)
    for arguments in ((), ("python3",)):
        done = machine.install(*arguments)
        assert (done.returncode, done.stdout) == (2, f"install: {said}\n")


def test_a_python_without_venv_is_told_in_one_sentence(machine):
    (machine.bin / "uv").unlink()
    machine.program("python3", f'exec "{sys.executable}" -c "import sys; sys.modules[\'ensurepip\'] = None; $2" ""')
    done = machine.install()
    assert (done.returncode, "apt-get install python3-venv" in done.stdout) == (2, True), done.stdout


def test_a_terminal_shows_from_the_first_step_on_that_something_happens(machine):
    machine.python("python3.12", 12)
    (machine.bin / "date").symlink_to(shutil.which("date"))
    machine.program("sleep", f"exec {shutil.which('sleep')} 0.05")
    uv = (machine.bin / "uv").read_text().split("\n", 1)[1]
    machine.program("uv", f'if [ "$1" = venv ]; then {shutil.which("sleep")} 1; echo made >&2; fi\n{uv}')
    code, said = in_terminal("workflow/scripts/install.sh", ".venv", cwd=machine.project, PATH=str(machine.bin))
    assert code == 0
    clock = re.search(r"\rinstall: \d+ s", said)[0]  # a machine that is busy may take a second to its first look
    steps = [said.index(one) for one in ("making .venv", "requirements.lock", clock, "made\r", "synced")]
    assert steps == sorted(steps)


def test_a_copy_gets_an_environment_of_its_own(machine, tmp_path):
    machine.python("python3.12", 12)
    machine.install()
    copy = tmp_path / "copy"
    shutil.copytree(machine.project, copy, symlinks=True, copy_function=os.link)
    assert "removing .venv" in machine.install(project=copy).stdout
    assert machine.install(project=copy).stdout == machine.install().stdout == ""
    moved = tmp_path / "moved"
    copy.rename(moved)
    assert "removing .venv" in machine.install(project=moved).stdout


def test_a_dead_interpreter_is_replaced_and_a_changed_lock_installs_again(machine):
    gone = machine.python("python3.13", 13)
    machine.python("python3.12", 12)
    machine.install()
    gone.unlink()
    assert machine.install().returncode == 0 and machine.chosen() == "python3.12"
    with (machine.project / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    said = machine.install().stdout
    assert "synced" in said and "removing" not in said


def test_install_removes_nothing_but_environments(machine):
    machine.python("python3.12", 12)
    (machine.project / ".venv/precious").mkdir(parents=True)
    done = machine.install()
    assert done.returncode == 2 and "is not an environment" in done.stdout
    assert (machine.project / ".venv/precious").exists()


def test_commands_work_in_a_folder_with_a_blank(project, tmp_path_factory):
    """In a rule's shell `bcd` is the one beside Snakemake's Python, and make's PATH begins with the environment's."""
    environment = tmp_path_factory.mktemp("odd") / "my {env} é"
    environment.symlink_to(Path(sys.executable).parents[1])
    python = environment / "bin/python"
    run(str(python), "-m", "snakemake", "--cores", "1", "results/smoke/data.json", "--config", "suite=smoke",
        cwd=project, PATH=os.defpath)  # fmt: skip
    odd = environment.parent / "my project é"
    odd.mkdir()
    shutil.copy(ROOT / "Makefile", odd)
    shutil.copytree(ROOT / "params", odd / "params")
    said = run("make", "--silent", "--eval", 'path: ; @echo "$$PATH"', "path", cwd=odd).stdout
    assert said.startswith(f"{odd}/.venv/bin:")


def test_launch_does_without_the_tmpdir_of_another_machine(tmp_path):
    (tmp_path / "bcd").write_text('#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $*"\n')
    (tmp_path / "bcd").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    launch = str(ROOT / "workflow/scripts/launch.sh")
    for folder in (tmp_path / "absent", tmp_path / "bcd"):
        said = run(launch, "1", "plan", cwd=ROOT, PATH=path, CUDA_VISIBLE_DEVICES="7", TMPDIR=str(folder))
        assert said.stdout == "7 plan\n"
    (tmp_path / f"bcd-gpu-{os.getuid()}-7").mkdir()
    said = run(launch, "1", "plan", cwd=ROOT, check=False, PATH=path, CUDA_VISIBLE_DEVICES="7", TMPDIR=str(tmp_path))
    assert said.returncode == 2 and "bcd-gpu-" in said.stdout and "set TMPDIR to another folder" in said.stdout
