"""What the jobs of an experiment cost together: work, time on named devices, measured time."""

from collections.abc import Iterable, Sequence

import pandas as pd

from ifguide.models.devices import GIB, Device
from ifguide.planning.jobs import PlannedJob

HOUR = 3600.0


def plan_table(
    jobs: Iterable[PlannedJob], devices: Sequence[Device], start_seconds: float
) -> pd.DataFrame:
    """Return a row for each stage, rule and subject, in the order of the jobs' stages.

    Columns: jobs and how many of them remain; tokens, flops, disk_gib and hours_<device> of all
    jobs; of one job the largest memory_gib and longest_job_hours (on the first device).
    measured_jobs have a record of time: measured_hours is their sum, and estimated_over_measured
    the estimate for those jobs on the first device over it; both are empty where there is none.
    """
    rows = []
    for job in jobs:
        seconds = [job.work.seconds(device, start_seconds) for device in devices]
        measured = job.measured is not None
        rows.append(
            {
                "stage": job.stage,
                "rule": job.rule,
                "subject": job.subject,
                "jobs": 1,
                "remaining_jobs": int(job.remaining),
                "tokens": job.work.tokens,
                "flops": job.work.flops,
                "memory_gib": job.work.memory / GIB,
                "disk_gib": job.work.disk / GIB,
                **{
                    f"hours_{device.name}": value / HOUR
                    for device, value in zip(devices, seconds, strict=True)
                },
                "longest_job_hours": seconds[0] / HOUR,
                "measured_jobs": int(measured),
                "measured_hours": job.measured / HOUR if measured else float("nan"),
                "estimated_hours": seconds[0] / HOUR if measured else float("nan"),
            }
        )
    return _summed(pd.DataFrame(rows), ["stage", "rule", "subject"])


def stage_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each stage of a plan's table, and one of the total."""
    parts = table.drop(columns="estimated_over_measured")
    # The estimate for measured jobs alone, which the ratio was made of.
    parts["estimated_hours"] = parts["measured_hours"] * table["estimated_over_measured"]
    stages = _summed(parts.drop(columns=["rule", "subject"]), ["stage"])
    total = _summed(parts.drop(columns=["rule", "subject"]).assign(stage="total"), ["stage"])
    return pd.concat([stages, total], ignore_index=True)


LARGEST = ("memory_gib", "longest_job_hours")


def _summed(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Sum the rows of each group, in the order of first appearance, and make the ratio anew."""
    groups = rows.groupby(keys, sort=False)
    summed = groups.sum(min_count=1)
    for column in LARGEST:
        summed[column] = groups[column].max()
    summed["estimated_over_measured"] = summed.pop("estimated_hours") / summed["measured_hours"]
    return summed.reset_index()


def shown(stages: pd.DataFrame, devices: Sequence[Device]) -> tuple[list[str], list[list[str]]]:
    """Return heading and rows of a table of stages as text, with measured times where there are."""
    measured = stages["measured_jobs"].sum() > 0
    heading = ["stage", "jobs", "to run", "tokens", "FLOPs"]
    heading += [f"hours, {device.name}" for device in devices]
    heading += ["memory GiB", "disk GiB"]
    if measured:
        heading += ["measured hours", f"estimated / measured ({devices[0].name})"]
    lines = []
    for row in stages.to_dict("records"):
        line = [row["stage"], f"{row['jobs']:,}", f"{row['remaining_jobs']:,}"]
        line += [_number(row["tokens"]), _number(row["flops"])]
        line += [_number(row[f"hours_{device.name}"]) for device in devices]
        line += [_number(row["memory_gib"]), _number(row["disk_gib"])]
        if measured:
            line += [_number(row["measured_hours"]), _number(row["estimated_over_measured"])]
        lines.append(line)
    return heading, lines


def memory_notes(stages: pd.DataFrame, device: Device) -> list[str]:
    """Return the stages, but for the total, that need more memory than a device has."""
    if device.memory_gib is None:
        return []
    large = stages[(stages["memory_gib"] > device.memory_gib) & (stages["stage"] != "total")]
    return [
        f"{row['stage']}: {row['memory_gib']:.0f} GiB, more than the {device.memory_gib:.0f} GiB "
        f"of {device.name}; lower the batch size of its largest job, or divide it (training.fsdp)"
        for row in large.to_dict("records")
    ]


def _number(value: float) -> str:
    """Return three digits: 12,300 or 0.00123, 1.2e+20 beyond a million millions; – for none."""
    if pd.isna(value) or value == 0:
        return "–"
    if value >= 1e12 or value < 1e-4:
        return f"{value:.2g}"
    if value >= 1e9:
        return f"{value / 1e9:,.3g} G"
    if value >= 1e6:
        return f"{value / 1e6:,.3g} M"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.1 else f"{value:.2g}"


def markdown(heading: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; every column but the first is aligned to the right."""
    marks = ["---", *["---:"] * (len(heading) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in [heading, marks, *lines])


def plain(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return the table for a terminal, its columns padded; headings are broken at spaces."""
    broken = [text.split(" ") for text in heading]
    height = max(map(len, broken))
    top = [[""] * (height - len(words)) + words for words in broken]
    rows = [*([words[level] for words in top] for level in range(height)), *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heading))]
    return "".join(
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        + "\n"
        for row in rows
    )
