"""Many dry runs for one start of Snakemake: each is a fork of this process, told on stdin.

A line in: {"arguments": [...], "output": path}. A line out: the exit status. What Snakemake prints
goes to the output file. Each fork parses the workflow anew, so nothing leaks between dry runs.
"""

import json
import os
import sys

from snakemake.cli import main


def dry_run(arguments: list[str], output: str) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(written, 1)
        os.dup2(written, 2)
        main(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        else:
            status = end.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    for line in sys.stdin:
        print(dry_run(**json.loads(line)), flush=True)
