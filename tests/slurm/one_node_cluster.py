"""A Slurm of one node with a stand-in GPU, started and stopped by a test. Needs root."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

# Steps within a job forget SLURM_CONF, so the configuration has to be where they look for it.
CONFIGURATION = Path("/etc/slurm")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}
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
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=sched_interval=2,batch_sched_delay=0
MinJobAge=7200
GresTypes=gpu
NodeName={host} CPUs={cores} RealMemory={memory_mb} Gres=gpu:standin:1 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """What this machine lacks for a cluster of its own, or None."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"needs {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)"
    if os.geteuid() != 0:
        return "needs root, to start Slurm"
    if (CONFIGURATION / "slurm.conf").exists():
        return f"{CONFIGURATION} belongs to another cluster"
    return None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]


class OneNodeCluster:
    """Starts munge, controller and node in a folder of their own; stops all three at exit."""

    def __enter__(self) -> "OneNodeCluster":
        # The path of a socket has to be short, so not below the folder of the test.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.daemons: list[subprocess.Popen] = []
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        host = socket.gethostname().partition(".")[0]
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        (self.folder / "slurm.conf").write_text(
            SLURM_CONF.format(
                host=host,
                folder=self.folder,
                controller_port=free_port(),
                node_port=free_port(),
                cores=os.cpu_count(),
                memory_mb=memory,
            ),
            encoding="utf-8",
        )
        (self.folder / "gres.conf").write_text(
            f"NodeName={host} Name=gpu Type=standin File=/dev/null\n", encoding="utf-8"
        )
        CONFIGURATION.mkdir(exist_ok=True)
        self.links = [CONFIGURATION / name for name in ("slurm.conf", "gres.conf")]
        for link in self.links:
            link.unlink(missing_ok=True)
            link.symlink_to(self.folder / link.name)
        for name in ("controller", "node"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        try:
            # To munge, /tmp is a stranger's folder, hence --force.
            self._start(
                *("munged", "--foreground", "--force", "--key-file", key),
                *("--socket", self.folder / "munge.socket", "--num-threads", "2"),
                *("--pid-file", self.folder / "munge.pid"),
                *("--log-file", self.folder / "munge.log"),
                *("--seed-file", self.folder / "munge.seed"),
            )
            self._wait(lambda: (self.folder / "munge.socket").exists())
            self._start("slurmctld", "-D")
            self._start("slurmd", "-D", "-N", host)
            self._wait(lambda: "State=IDLE" in self.ask("show", "node"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, *command) -> None:
        name = Path(command[0]).name
        with open(self.folder / f"{name}.out", "w") as output:
            self.daemons.append(
                subprocess.Popen(
                    [str(part) for part in command],
                    env=os.environ | self.environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )

    def _wait(self, ready, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not ready():
            alive = all(daemon.poll() is None for daemon in self.daemons)
            if not alive or time.monotonic() > end:
                outputs = [path.read_text() for path in sorted(self.folder.glob("*.out"))]
                raise RuntimeError("the cluster did not start:\n" + "\n".join(outputs))
            time.sleep(0.2)

    def ask(self, *arguments: str) -> str:
        """What scontrol prints, one record a line."""
        ran = subprocess.run(
            ["scontrol", "--oneliner", *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return ran.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Every job since the start: the fields of `scontrol show job`."""
        lines = self.ask("show", "job").splitlines()
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines if "JobId=" in line]

    def cancel(self, job: str) -> None:
        subprocess.run(["scancel", job], env=os.environ | self.environment, check=False)

    def __exit__(self, *_error) -> None:
        # A node that is stopped first leaves its jobs behind.
        alive = ("RUNNING", "PENDING", "COMPLETING")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            left = [job["JobId"] for job in self.jobs() if job["JobState"] in alive]
            if not left:
                break
            for job in left:
                self.cancel(job)
            time.sleep(1)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for link in self.links:
            link.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
