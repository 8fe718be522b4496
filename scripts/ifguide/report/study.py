"""The comparison of variants: the settings of each, and how well it finds the known toxic tokens.

A variant is chosen by the half `choose` of the documents and quoted by the half `report`.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from ifguide.influence.truth_splits import HALVES

SHOWN = "auprc_over_base"
METRICS = (SHOWN, "auprc", "lift_at_0.001", "auroc")


def study_table(
    study: Sequence[Mapping], settings: Mapping[str, Mapping[str, str]], metrics: Mapping[str, dict]
) -> pd.DataFrame:
    """Return one row for each question and variant, in the order of the study.

    study: [{"question", "variants"}]; settings: of each variant, by column; metrics: of each
    variant, the attribution.json. Columns: question, variant, chosen, the settings, and
    `<split>_<metric>` with `_low` and `_high` for both halves and their toxic documents. `chosen`
    marks the variant with the largest `auprc_over_base` of the half `choose`; none, where that half
    holds no known toxic token.
    """
    rows = []
    for entry in study:
        for variant in entry["variants"]:
            row = {"question": entry["question"], "variant": variant, **settings[variant]}
            found = {(r["split"], r["metric"]): r for r in metrics[variant]["rows"]}
            for half in HALVES:
                for split in (half, f"{half}_toxic"):
                    for metric in METRICS:
                        cell = found[split, metric]
                        row[f"{split}_{metric}"] = cell["value"]
                        row[f"{split}_{metric}_low"] = cell["ci_low"]
                        row[f"{split}_{metric}_high"] = cell["ci_high"]
            rows.append(row)
    table = pd.DataFrame(rows)
    column = f"{HALVES[0]}_{SHOWN}"
    known = table[column].astype(float)
    best = None if known.isna().all() else table.loc[known.idxmax(), "variant"]
    table.insert(2, "chosen", table["variant"] == best)
    return table


def study_markdown(table: pd.DataFrame, columns: Sequence[str]) -> str:
    """Return the table in Markdown: settings spelled out, both halves with intervals.

    columns: the settings to show.
    """
    headings = [
        "variant",
        *(column.replace("_", " ") for column in columns),
        "area / base, choosing half",
        "area / base, reported half",
        "within toxic documents, reported half",
        "lift at 0.1 %, reported half",
    ]
    lines = []
    for question, rows in table.groupby("question", sort=False):
        lines += [f"**{question}**", "", "| " + " | ".join(headings) + " |"]
        lines.append("|" + " --- |" * (1 + len(columns)) + " ---: |" * 4)
        for row in rows.to_dict("records"):
            mark = "**" if row["chosen"] else ""
            cells = [f"{mark}{row['variant']}{mark}", *(row[column] for column in columns)]
            cells += [
                _with_interval(row, name)
                for name in (
                    f"choose_{SHOWN}",
                    f"report_{SHOWN}",
                    f"report_toxic_{SHOWN}",
                    "report_lift_at_0.001",
                )
            ]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    lines.append("Bold: best by the choosing half. Brackets: bootstrap intervals over documents.")
    return "\n".join(lines) + "\n"


def _with_interval(row: Mapping, name: str) -> str:
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if value is None or pd.isna(value):
        return "–"
    if low is None or pd.isna(low):
        return f"{value:.2f}"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
