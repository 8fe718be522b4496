"""What the tests of the workflow share: a clone of it, with a finished tiny run."""

import contextlib
import hashlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock

from ifguide.files.checksums import SUMS

# Threads wait for one another on tensors as small as these, the more where tests share the cores.
torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = "tests/configs/tiny.yaml"
# As a folder's name it is only a name, unless a shell gets to read it.
AWKWARD = 'it\'s "a" folder; touch it-ran; $(touch it-ran) & `touch it-ran`'


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def real_text() -> Path:
    """The folder of the real texts, which are not part of the repository."""
    folder = Path(os.environ.get("IFGUIDE_REAL_TEXT", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real texts in {folder}; name their folder in IFGUIDE_REAL_TEXT")
    return folder


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """An empty folder in which stages write: what is damaged there may be deleted."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def environment() -> dict[str, str]:
    """One thread a job, and a network that answers nothing."""
    closed = "http://127.0.0.1:9"
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        **{name: closed for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")},
        "no_proxy": "",
        "NO_PROXY": "",
    }


def snakemake_command(*arguments: str | Path, python: str | Path = sys.executable) -> list[str]:
    return [*map(str, (python, "-m", "snakemake", *arguments))]


def run_snakemake(
    directory: Path,
    *arguments: str | Path,
    timeout: float = 600,
    python: str | Path = sys.executable,
    variables: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in `directory` and return what it did; both streams are in `stdout`."""
    return subprocess.run(
        snakemake_command(*arguments, python=python),
        cwd=directory,
        env=environment() | (variables or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def rules_to_run(printed: str) -> set[str]:
    """The rules in the job table of a dry run, less `all`; empty where there is nothing to do."""
    if "Nothing to be done" in printed:
        return set()
    return set(jobs_to_run(printed)) - {"all"}


def jobs_to_run(printed: str) -> dict[str, int]:
    """The number of jobs of each rule in the job table of a dry run."""
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total +\d+$", printed, re.M | re.S)
    assert table, printed
    return {line.split()[0]: int(line.split()[1]) for line in table[1].splitlines()}


def error_line(printed: str) -> str:
    """The one line in which the workflow says what is wrong."""
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, printed
    return lines[0]


def job_commands(directory: Path, *arguments: str | Path) -> list[list[str]]:
    """The command of every job that a dry run lists, in the order in which they can run."""
    printed = run_snakemake(
        directory, *arguments, "--cores", "1", "--dry-run", "--printshellcmds"
    ).stdout
    found = re.findall(r"^Shell command: (python .*) > \S+ 2>&1$", printed, re.M)
    assert found, printed
    return [shlex.split(command)[1:] for command in found]


def run_command(directory: Path, command: list[str]) -> str | None:
    """Run a job's script in this process, as a job would; return the line of its error, if any."""
    before = sys.argv, Path.cwd(), torch.get_num_threads()
    printed = directory / "printed.txt"
    try:
        sys.argv = command
        os.chdir(directory)
        torch.set_num_threads(1)  # as a job has
        with open(printed, "w") as stream, contextlib.redirect_stderr(stream):
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        assert end.code == 1
        return error_line(printed.read_text(encoding="utf-8"))
    finally:
        sys.argv = before[0]
        os.chdir(before[1])
        torch.set_num_threads(before[2])
    return None


# What tells the command, the time or the machine, and the report, which shows them.
NEVER_THE_SAME = {"run_config.yaml", "report.html"}


def content_of(directory: Path, *tops: str | Path) -> dict[str, str]:
    """The hash of every file of a run at or below `tops`, less what tells how long it took.

    Hidden files are left out: locks, and what a killed job was about to write.
    """
    hashes = {}
    for path in (path for top in tops for path in [top, *Path(directory, top).rglob("*")]):
        name = Path(directory, path).relative_to(directory)
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or name.name in NEVER_THE_SAME or not (directory / name).is_file():
            continue
        content = (directory / name).read_bytes()
        content = re.sub(rb'"(seconds|tokens_per_second|flops_utilisation)": [^,\n]+', b"", content)
        if name.name == SUMS:  # some of these files tell how long it took
            content = re.sub(rb"^[0-9a-f]{64} ", b"", content, flags=re.M)
        hashes[str(name)] = hashlib.sha256(content).hexdigest()
    return hashes


def require_whole(directory: Path) -> None:
    """Every file below `directory` that is not hidden has its line, which coreutils find true."""
    visible: dict[Path, set[str]] = {}
    for path in directory.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.is_file() and not hidden and path.name != SUMS:
            visible.setdefault(path.parent, set()).add(path.name)
    assert visible
    for folder, names in visible.items():
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        assert [line[66:] for line in lines] == sorted(names), folder
        command = ["sha256sum", "--check", "--strict", "--quiet", SUMS]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", ""), folder


def copy_repository(target: Path) -> Path:
    """Copy what a run needs, as a clone has it: without times, results or caches."""
    for folder in ("workflow", "scripts", "config", "envs", "tests/configs"):
        shutil.copytree(
            REPOSITORY / folder,
            target / folder,
            ignore=shutil.ignore_patterns("__pycache__"),
            copy_function=shutil.copyfile,
        )
    return target


def read_tiny() -> dict:
    return yaml.safe_load((REPOSITORY / TINY).read_text("utf-8"))


def write_small_config(clone: Path) -> str:
    """The tiny config with few methods and measurements, but every rule of the default one."""
    config = read_tiny()
    # A classifier that learns something, and so a filter that drops some documents but not all.
    config["classifiers"]["explicit"]["train"] |= {"epochs": 30, "learning_rate": 3.0e-3}
    config["methods"]["toxicity_filter"]["filter"]["unit"] = "document"
    # A filtered model that is trained, but not evaluated.
    config["methods"]["ifguide"]["start_from"] = "toxicity_filter"
    config["evaluation"]["methods"] = ["none", "ifguide", "rad"]
    del config["benchmarks"]["toxigen"]
    config["influence"]["directions"]["differential"]["measure"] = []
    config["influence"]["variants"] = {"pooled": {"direction": "differential", "pooling": 0.9}}
    config["report"] |= {"study": [], "agreement_blocks": 0, "proxy_agreement": None}
    (clone / "small.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return "small.yaml"


def copy_run(source: Path, target: Path) -> Path:
    """Copy a clone with its finished run, times included."""
    return Path(shutil.copytree(source, target))


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that all processes of these tests share.

    IFGUIDE_FINISHED names one that is kept for the next call of pytest, of the same code.
    """
    # Workers of pytest-xdist share the parent of their base folders.
    base = tmp_path_factory.getbasetemp()
    own = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return Path(os.environ.get("IFGUIDE_FINISHED", own))


def run_once(target: Path, begin: Callable[[Path], list[str]]) -> Path:
    """Have `target` hold a run that ended; `begin` makes its folder and returns its config."""
    with FileLock(target.with_suffix(".lock")):
        if not target.exists():
            unfinished = target.with_suffix(".unfinished") / "clone"
            shutil.rmtree(unfinished, ignore_errors=True)
            ran = run_snakemake(unfinished, *begin(unfinished), "--cores", "2")
            assert ran.returncode == 0, ran.stdout
            unfinished.parent.rename(target)
    return target / "clone"


@pytest.fixture(scope="session")
def finished(shared) -> Path:
    """A clone in which the tiny config has run to its end; copy it before changing anything."""

    def begin(clone: Path) -> list[str]:
        copy_repository(clone)
        return ["--configfile", TINY]

    return run_once(shared / "finished", begin)


@pytest.fixture(scope="session")
def finished_small(shared, finished) -> Path:
    """A copy of the finished run in which the small config has run to its end as well."""

    def begin(clone: Path) -> list[str]:
        copy_run(finished, clone)
        for name in ("summary.csv", "report.html"):
            (clone / "results/tiny" / name).unlink()
        return ["--configfile", write_small_config(clone)]

    return run_once(shared / "small", begin)


class DryRuns:
    """Dry runs of a finished run, under overlays of its config."""

    def __init__(self, directory: Path, scratch: Path) -> None:
        self.directory = directory
        self.scratch = scratch
        self.process = subprocess.Popen(
            [sys.executable, REPOSITORY / "tests" / "dry_runs.py"],
            cwd=directory,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def printed(self, *configs: dict | str, target: Path | None = None) -> str:
        """What a dry run prints; a config is a path, or the content of a file."""
        paths = []
        for number, config in enumerate(configs):
            if isinstance(config, dict):
                path = self.scratch / f"{number}.yaml"
                path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
                config = str(path)
            paths.append(config)
        output = self.scratch / "printed.txt"
        request = {
            "arguments": [
                *([str(target)] if target else []),
                *("--cores", "1", "--dry-run", "--configfile", *paths),
            ],
            "output": str(output),
        }
        print(json.dumps(request), file=self.process.stdin, flush=True)
        assert self.process.stdout.readline(), "the dry runs ended"
        return output.read_text(encoding="utf-8")

    def rules(self, *configs: dict | str, target: Path | None = None) -> set[str]:
        return rules_to_run(self.printed(*configs, target=target))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def dry_runs(finished, tmp_path_factory) -> Iterator[DryRuns]:
    runs = DryRuns(finished, tmp_path_factory.mktemp("overlays"))
    yield runs
    runs.close()
