"""A Slurm of one node with stand-in GPUs, started and stopped by a test. Needs root."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from filelock import FileLock

# Steps within a job forget SLURM_CONF, so the configuration has to be where they look for it.
CONFIGURATION = Path("/etc/slurm")
LOCK = Path(tempfile.gettempdir()) / "one-node-cluster.lock"
PROGRAMS = (
    *("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel"),
    "setpriv",
)
UNFINISHED = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED")

# More cores than a small machine has, and more memory: else what others wait for queues behind what
# nothing waits for, and a second attempt asks for twice the memory, which nothing here holds it to.
SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=7200
KillWait=2
MessageTimeout=60
BatchStartTimeout=120
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=128000 Gres=gpu:standin:4 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE State=UP
"""
GRES_CONF = """\
NodeName={host} Name=gpu Type=standin File=/dev/null
NodeName={host} Name=gpu Type=standin File=/dev/zero
NodeName={host} Name=gpu Type=standin File=/dev/full
NodeName={host} Name=gpu Type=standin File=/dev/urandom
"""
# The executor waits 10 s longer after each look at the queue that finds no job ended, and nothing
# sets that. So let the queue be shown once one more has ended, or after a while, well before the
# executor's own limit of 60 s: after five such failures it forgets its jobs. The last argument is
# the name of the run.
SQUEUE = """\
#!/bin/sh
for run; do :; done
end=$(($(date +%s) + 25))
while :; do
    queue=$({squeue} "$@") || exit
    ended=$(echo "$queue" | grep --count --invert-match --extended-regexp '^$|{unfinished}')
    [ "$ended" -gt "$(cat {folder}/"$run".ended 2>/dev/null || echo 0)" ] && break
    [ "$(date +%s)" -ge "$end" ] && break
    sleep 0.3
done
echo "$ended" > {folder}/"$run".ended
echo "$queue"
"""


def why_not() -> str | None:
    """What this machine lacks for a cluster of its own, or None."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"needs {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)"
    if os.geteuid() != 0:
        return "needs root, to start Slurm"
    # A link is what an earlier test left that was killed, or one that runs and holds the lock.
    configuration = CONFIGURATION / "slurm.conf"
    if configuration.exists() and not configuration.is_symlink():
        return f"{CONFIGURATION} belongs to another cluster"
    return None


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("", 0))
        return [listener.getsockname()[1] for listener in listeners]


class OneNodeCluster:
    """Starts munge, controller and node in a folder of their own; stops all three at exit.

    `environment` is what a process needs to submit. One at a time on a machine: others wait.
    """

    def __enter__(self) -> "OneNodeCluster":
        with contextlib.ExitStack() as stack:
            stack.enter_context(FileLock(LOCK, timeout=1800))
            # The path of a socket has to be short, so not below the folder of the test.
            self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.environment = {
                "SLURM_CONF": str(self.folder / "slurm.conf"),
                "PATH": f"{self.folder}:{os.environ['PATH']}",
            }
            self._write_configuration(stack)
            self.daemons: list[subprocess.Popen] = []
            stack.callback(self._stop)
            # To munge, /tmp is a stranger's folder, hence --force.
            self._start(
                *("munged", "--foreground", "--force", "--key-file", self.folder / "munge.key"),
                *("--socket", self.folder / "munge.socket", "--num-threads", "2"),
                *("--pid-file", self.folder / "munge.pid"),
                *("--log-file", self.folder / "munge.log"),
                *("--seed-file", self.folder / "munge.seed"),
            )
            self._wait(lambda: (self.folder / "munge.socket").exists())
            self._start("slurmctld", "-D")
            self._start("slurmd", "-D", "-N", self.host)
            self._wait(lambda: "State=IDLE" in self.ask("show", "node"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error) -> None:
        self._stack.close()

    def _write_configuration(self, stack: contextlib.ExitStack) -> None:
        self.host = socket.gethostname().partition(".")[0]
        controller_port, node_port = free_ports(2)
        values = {
            "host": self.host,
            "folder": self.folder,
            "controller_port": controller_port,
            "node_port": node_port,
            "cores": 2 * os.cpu_count(),
            "squeue": shutil.which("squeue"),
            "unfinished": "|".join(UNFINISHED),
        }
        for name, content in [
            ("slurm.conf", SLURM_CONF),
            ("gres.conf", GRES_CONF),
            ("squeue", SQUEUE),
        ]:
            (self.folder / name).write_text(content.format(**values), encoding="utf-8")
        (self.folder / "squeue").chmod(0o755)
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        for name in ("controller", "node"):
            (self.folder / name).mkdir()
        CONFIGURATION.mkdir(exist_ok=True)
        for name in ("slurm.conf", "gres.conf"):
            link = CONFIGURATION / name
            link.unlink(missing_ok=True)
            link.symlink_to(self.folder / name)
            stack.callback(link.unlink, missing_ok=True)

    def _start(self, *command) -> None:
        name = Path(command[0]).name
        with open(self.folder / f"{name}.out", "w") as output:
            self.daemons.append(
                subprocess.Popen(
                    # A daemon ends with the test, also where that is killed.
                    ["setpriv", "--pdeathsig", "TERM", *map(str, command)],
                    env=os.environ | self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )

    def _wait(self, ready, seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while not ready():
            alive = all(daemon.poll() is None for daemon in self.daemons)
            if not alive or time.monotonic() > end:
                raise RuntimeError(f"the cluster did not start:\n{self.logs()}")
            time.sleep(0.2)

    def ask(self, *arguments: str) -> str:
        """What scontrol prints, one record a line."""
        return self._run("scontrol", "--oneliner", *arguments)

    def _run(self, *command: str) -> str:
        ran = subprocess.run(
            command,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return ran.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Every job since the start: the fields of `scontrol show job`."""
        lines = self.ask("show", "job").splitlines()
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines if "JobId=" in line]

    def script(self, job: str) -> str:
        """The batch script of a job."""
        return self._run("scontrol", "write", "batch_script", job, "-")

    def cancel(self, job: str) -> None:
        self._run("scancel", job)

    def logs(self) -> str:
        """The jobs and the end of every daemon's log, to show with a failure."""
        fields = ("JobId", "JobState", "Reason", "ExitCode", "RunTime", "Comment")
        jobs = [" ".join(f"{job.get(field)}" for field in fields) for job in self.jobs()]
        outputs = [
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.folder.glob("*.out"))
        ]
        return "\n".join([*jobs, *outputs])

    def _stop(self) -> None:
        # A node that is stopped first leaves its jobs behind.
        end = time.monotonic() + 20
        with contextlib.suppress(subprocess.TimeoutExpired):
            while time.monotonic() < end:
                left = [job["JobId"] for job in self.jobs() if job["JobState"] in UNFINISHED]
                if not left:
                    break
                for job in left:
                    self.cancel(job)
                time.sleep(0.5)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for process in self._left_behind():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _left_behind(self) -> list[int]:
        """The processes that still carry this cluster's configuration in their environment."""
        mark = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in environment.read_bytes().split(b"\0"):
                    found.append(int(environment.parent.name))
        return found
