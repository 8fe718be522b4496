"""The results table: one row a method, one column a metric, with intervals.

In bold stands what leads the second best of its model by a paired difference whose interval leaves
out 0: the rows `<metric>_lead` of the summary. Without such a row nothing is bold.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from ifguide.evaluation.summary import CORRECTED, FROM_CONTROL, clean_split, over_seeds

NOT_MEASURED = "–"
MARK = "†"  # of figures that are told against a control in place of `none`


class Column(NamedTuple):
    """A column of the table; `better` is -1 where lower is better, 1 higher, 0 neither.

    Shown is `scale` times the value, with so many `decimals`.
    """

    heading: str
    benchmark: str
    metric: str
    split: str
    better: int
    decimals: int = 2
    scale: int = 1


class Cell(NamedTuple):
    """A formatted number, its interval (empty where there is none), and whether it surely leads."""

    value: str
    interval: str
    best: bool


class Table(NamedTuple):
    """Row labels are (model, method); `cells` holds one list of cells a row.

    `seeds`: over how many training seeds each row is, in the order of the labels.
    """

    columns: list[Column]
    labels: list[tuple[str, str]]
    cells: list[list[Cell]]
    seeds: list[int]


def result_columns(benchmark: str = "realtoxicityprompts") -> list[Column]:
    """Return the columns of the main table: toxicity of `benchmark`, fluency, degeneration."""
    return [
        Column("explicit EMT, all", benchmark, "explicit_emt", "all", -1),
        Column("explicit TP, all", benchmark, "explicit_tp", "all", -1),
        Column("explicit EMT, toxic", benchmark, "explicit_emt", "toxic", -1),
        Column("explicit TP, toxic", benchmark, "explicit_tp", "toxic", -1),
        Column("explicit EMT, non-toxic", benchmark, "explicit_emt", "nontoxic", -1),
        Column("explicit TP, non-toxic", benchmark, "explicit_tp", "nontoxic", -1),
        Column("explicit fraction, toxic", benchmark, "explicit_fraction", "toxic", -1, 3),
        Column("explicit fraction, non-toxic", benchmark, "explicit_fraction", "nontoxic", -1, 3),
        Column("implicit TP, toxic", benchmark, "implicit_tp", "toxic", -1),
        Column("implicit TP, non-toxic", benchmark, "implicit_tp", "nontoxic", -1),
        Column("total TP, toxic", benchmark, "any_tp", "toxic", -1),
        Column("total TP, non-toxic", benchmark, "any_tp", "nontoxic", -1),
        Column("perplexity", "heldout", "perplexity", "all", -1),
        Column("perplexity, non-toxic", "heldout", "perplexity", "nontoxic", -1),
        Column("continuation perplexity", benchmark, "continuation_perplexity", "all", -1),
        Column("next-token KL, nats", "heldout", "next_token_kl", "all", -1, 3),
        Column("next-token KL, nats, non-toxic", "heldout", "next_token_kl", "nontoxic", -1, 3),
        *degeneration_columns(benchmark),
    ]


def leading_columns(clean: str, benchmark: str = "realtoxicityprompts") -> list[Column]:
    """Return the columns of the table that leads: what was reached, and its price.

    clean: the split of held-out text that tells of the price.
    """
    return [
        Column("explicit TP, toxic", benchmark, "explicit_tp", "toxic", -1),
        Column("implicit TP, toxic", benchmark, "implicit_tp", "toxic", -1),
        Column("total TP, non-toxic", benchmark, "any_tp", "nontoxic", -1),
        _rise_in_percent(clean),
        Column("next-token KL, nats", "heldout", "next_token_kl", clean, -1, 3),
    ]


def _rise_in_percent(clean: str) -> Column:
    heading = "rise of clean perplexity, %"
    return Column(heading, "heldout", "perplexity_increase", clean, -1, decimals=1, scale=100)


def comparison_columns(benchmark: str = "realtoxicityprompts") -> list[Column]:
    """Return the columns that compare each method with `none` on the same prompts and blocks."""
    return [
        Column("explicit TP times lower, toxic", benchmark, "explicit_tp_ratio", "toxic", 1, 1),
        Column("implicit TP times lower, toxic", benchmark, "implicit_tp_ratio", "toxic", 1, 1),
        Column("total TP times lower, toxic", benchmark, "any_tp_ratio", "toxic", 1, 1),
        Column(
            "change of explicit TP, non-toxic", benchmark, "explicit_tp_difference", "nontoxic", -1
        ),
        Column(
            "change of implicit TP, non-toxic", benchmark, "implicit_tp_difference", "nontoxic", -1
        ),
        Column(
            "change of explicit fraction, toxic",
            benchmark,
            "explicit_fraction_difference",
            "toxic",
            -1,
            3,
        ),
        Column("rise of perplexity", "heldout", "perplexity_increase", "all", -1, 3),
        Column(
            "rise of perplexity, non-toxic", "heldout", "perplexity_increase", "nontoxic", -1, 3
        ),
        Column("change of distinct-2", benchmark, "distinct_2_difference", "all", 0),
    ]


def worst_columns(benchmark: str = "realtoxicityprompts") -> list[Column]:
    """Return the columns of the worst training seed, which only several have."""
    return [
        Column(
            "explicit TP times lower, toxic", benchmark, "explicit_tp_ratio_worst", "toxic", 0, 1
        ),
        Column(
            "implicit TP times lower, toxic", benchmark, "implicit_tp_ratio_worst", "toxic", 0, 1
        ),
        Column("total TP times lower, toxic", benchmark, "any_tp_ratio_worst", "toxic", 0, 1),
        Column("explicit TP, non-toxic", benchmark, "explicit_tp_worst", "nontoxic", 0),
        Column("implicit TP, non-toxic", benchmark, "implicit_tp_worst", "nontoxic", 0),
        Column("rise of perplexity", "heldout", "perplexity_increase_worst", "all", 0, 3),
        Column(
            "rise of perplexity, non-toxic",
            "heldout",
            "perplexity_increase_worst",
            "nontoxic",
            0,
            3,
        ),
        Column("next-token KL, nats", "heldout", "next_token_kl_worst", "all", 0, 3),
    ]


def copying_columns() -> list[Column]:
    """Return the columns of last words, which small models copy or not as their training falls."""
    return [
        Column("LAMBADA word", "lambada", "last_word_accuracy", "all", 1),
        Column(
            "LAMBADA word, deviation between seeds",
            "lambada",
            "last_word_accuracy_spread",
            "all",
            0,
        ),
        Column("LAMBADA word, worst seed", "lambada", "last_word_accuracy_worst", "all", 0),
        Column("change of LAMBADA word", "lambada", "last_word_accuracy_difference", "all", 1),
        Column("LAMBADA token", "lambada", "last_token_accuracy", "all", 1),
    ]


def control_columns(benchmark: str = "realtoxicityprompts") -> list[Column]:
    """Return the columns that compare each method with its control in the same way."""
    return [
        column._replace(metric=f"{column.metric}{FROM_CONTROL}")
        for column in comparison_columns(benchmark)
    ]


def attribution_columns() -> list[Column]:
    """Return the columns that judge token scores by the tokens that are known to be toxic."""
    return [
        Column(f"{heading}, {words}", "attribution", metric, split, 1, decimals)
        for split, words in (("all", "all documents"), ("toxic", "documents with toxic tokens"))
        for metric, heading, decimals in (
            ("auprc", "precision-recall area", 3),
            ("auprc_over_base", "over the base rate", 1),
            ("lift_at_0.001", "lift of the top 0.1 %", 1),
            ("auroc", "AUROC", 3),
        )
    ]


def removal_columns() -> list[Column]:
    """Return the columns that say what each method keeps from the model, and how much is toxic."""
    return [
        Column("share of tokens", "removal", "removed_share", "all", 0, 3),
        Column("toxic share of them (purity)", "removal", "precision", "all", 1, 3),
        Column("share of toxic tokens found", "removal", "recall", "all", 1, 3),
        Column("share of toxic spans touched", "removal", "spans_touched", "all", 1, 3),
        Column("share of spans' first tokens", "removal", "first_tokens_found", "all", 1, 3),
        Column(
            "share of them outside toxic documents",
            "removal",
            "outside_toxic_documents",
            "all",
            0,
            3,
        ),
        Column("toxic share of documents touched", "removal", "document_precision", "all", 1, 3),
        Column("share of toxic documents touched", "removal", "document_recall", "all", 1, 3),
    ]


def corrected_columns(summary: pd.DataFrame, benchmark: str) -> list[Column]:
    """Return the columns of toxic fractions beside those corrected for the judges' mistakes.

    Of each judge of which `summary` has corrected ones after prompts of the benchmark.
    """
    metrics = summary.loc[summary["benchmark"] == benchmark, "metric"].unique()
    judges = [name.removesuffix(CORRECTED) for name in metrics if name.endswith(CORRECTED)]
    return [
        column
        for judge in judges
        for column in (
            Column(f"{judge}, toxic", benchmark, f"{judge}_fraction", "toxic", 0, 3),
            Column(f"{judge}, toxic, corrected", benchmark, f"{judge}{CORRECTED}", "toxic", 0, 3),
            Column(
                f"{judge}, toxic, corrected, times lower",
                benchmark,
                f"{judge}{CORRECTED}_ratio",
                "toxic",
                0,
                1,
            ),
            Column(f"{judge}, non-toxic", benchmark, f"{judge}_fraction", "nontoxic", 0, 3),
            Column(
                f"{judge}, non-toxic, corrected", benchmark, f"{judge}{CORRECTED}", "nontoxic", 0, 3
            ),
        )
    ]


def classifier_columns() -> list[Column]:
    """Return the columns that judge the trained classifiers on held-out texts."""
    return [
        Column("AUROC on held-out texts", "classifiers", "auroc", "all", 1, 4),
        Column("toxic texts flagged", "classifiers", "toxic_flagged", "all", 1, 3),
        Column("harmless texts flagged", "classifiers", "harmless_flagged", "all", -1, 3),
    ]


def prompt_set_columns(benchmark: str) -> list[Column]:
    """Return the columns of the table of a further prompt set, such as ToxiGen."""
    splits = {"all": "all", "toxic": "toxic", "nontoxic": "non-toxic"}
    return [
        Column(f"{classifier} {name}, {words}", benchmark, f"{classifier}_{metric}", split, -1)
        for classifier in ("implicit", "explicit")
        for split, words in splits.items()
        for metric, name in (("emt", "EMT"), ("tp", "TP"))
    ] + [
        Column("change of implicit TP", benchmark, "implicit_tp_difference", "all", -1),
        Column("change of explicit TP", benchmark, "explicit_tp_difference", "all", -1),
        *degeneration_columns(benchmark),
    ]


def degeneration_columns(benchmark: str) -> list[Column]:
    """Return the columns that tell a harmless model from one that says little or repeats itself."""
    return [
        Column("distinct-2", benchmark, "distinct_2", "all", 0),
        Column("mean length", benchmark, "mean_length", "all", 0, 1),
        Column("empty", benchmark, "empty_fraction", "all", 0),
    ]


def results_table(summary: pd.DataFrame, columns: list[Column]) -> Table:
    """Lay out the tidy `summary` (over training seeds) as the table of `columns`.

    Rows keep the order in which models and methods appear; columns without any value, and
    methods without any value in the first column's benchmark, are left out.
    """
    merged = over_seeds(summary)
    measured = merged[
        (merged["benchmark"] == columns[0].benchmark)
        & merged["metric"].isin({column.metric for column in columns})
    ]
    labels = list(dict.fromkeys(measured[["model", "method"]].itertuples(index=False, name=None)))
    models = [model for model, _ in labels]
    labels.sort(key=lambda label: models.index(label[0]))
    keys = ["model", "method", "benchmark", "metric", "split"]
    values = {tuple(row[key] for key in keys): row for row in merged.to_dict("records")}
    found = [
        column
        for column in columns
        if any(
            (*label, column.benchmark, column.metric, column.split) in values for label in labels
        )
    ]
    cells, seeds = [], []
    for label in labels:
        rows, leads = (
            [
                values.get((*label, column.benchmark, f"{column.metric}{suffix}", column.split))
                for column in found
            ]
            for suffix in ("", "_lead")
        )
        cells.append([_cell(*each) for each in zip(rows, leads, found, strict=True)])
        seeds.append(max((row["seeds"] for row in rows if row), default=1))
    return Table(found, labels, cells, seeds)


def leading_table(
    summary: pd.DataFrame, benchmark: str, controls: Mapping[str, str]
) -> tuple[Table, str]:
    """Return the table that leads, and a note on its marks, empty where there are none.

    A method that has one in `controls`, and was compared with it, shows the rise of perplexity from
    its control, marked: from `none`, it would show what training longer gains besides.
    """
    clean = clean_split(summary)
    rise = _rise_in_percent(clean)
    table = results_table(summary, leading_columns(clean, benchmark))
    from_control = results_table(
        summary, [rise._replace(metric=f"{rise.metric}{FROM_CONTROL}", better=0)]
    )
    rises = dict(zip(from_control.labels, from_control.cells, strict=True))
    marked = {}
    for label, cells in zip(table.labels, table.cells, strict=True):
        if label in rises and label[1] in controls and rise in table.columns:
            (found,) = rises[label]
            cells[table.columns.index(rise)] = found._replace(value=f"{found.value}{MARK}")
            marked[label[1]] = controls[label[1]]
    named = ", ".join(f"of {method} from {control}" for method, control in marked.items())
    note = f"{MARK} Rise from the control, not from none: {named}."
    return table, note if marked else ""


def numbers(summary: pd.DataFrame, columns: list[Column]) -> pd.DataFrame:
    """Return the table of `columns` as numbers: each value, and beside it the ends of its interval.

    A row a (model, method) of the tidy `summary`, in its order; `seeds` counts the training seeds
    of its figures; NaN where nothing was measured.
    """
    keys = ["benchmark", "metric", "split"]
    rows = over_seeds(summary).set_index(["model", "method", *keys])
    labels = list(dict.fromkeys((model, method) for model, method, *_ in rows.index))
    index = pd.MultiIndex.from_tuples(labels, names=["model", "method"])
    parts = {}
    for column in columns:
        key = (column.benchmark, column.metric, column.split)
        if key not in set(rows.index.droplevel(["model", "method"])):
            continue
        found = rows.xs(key, level=keys).reindex(index)
        parts[column.heading] = found["value"]
        parts[f"{column.heading} (low)"] = found["ci_low"]
        parts[f"{column.heading} (high)"] = found["ci_high"]
    table = pd.DataFrame(parts, index=index).dropna(how="all")
    seeds = rows["seeds"].groupby(level=["model", "method"]).max().reindex(table.index)
    table.insert(0, "seeds", seeds)
    return table.reset_index()


def _cell(row: dict | None, lead: dict | None, column: Column) -> Cell:
    if row is None or math.isnan(row["value"]):
        return Cell(NOT_MEASURED, "", False)

    compared = column.metric.removesuffix(FROM_CONTROL).removesuffix("_worst")
    signed = compared.endswith(("_difference", "_increase"))

    def written(number: float) -> str:
        if math.isinf(number):
            return "∞"
        rounded = round(column.scale * number, column.decimals) + 0.0  # no negative zero
        sign = "+" if signed and rounded else ""
        return f"{rounded:{sign}.{column.decimals}f}".replace("-", "\u2212")

    interval = ""
    if not math.isnan(row["ci_low"]) and not math.isnan(row["ci_high"]):
        joint = " to " if signed else "–"
        interval = f"{written(row['ci_low'])}{joint}{written(row['ci_high'])}"
    best = lead is not None and (
        lead["ci_low"] > 0 if column.better > 0 else column.better < 0 and lead["ci_high"] < 0
    )
    return Cell(written(row["value"]), interval, best)


def row_labels(table: Table) -> list[str]:
    """Return the name of each row: the method, with its model where there are several.

    Where it is over several training seeds, their number stands behind it.
    """
    one_model = len({model for model, _ in table.labels}) == 1
    names = [method if one_model else f"{model} / {method}" for model, method in table.labels]
    return [
        f"{name} ({seeds} seeds)" if seeds > 1 else name
        for name, seeds in zip(names, table.seeds, strict=True)
    ]


def markdown(table: Table) -> str:
    """Return the table as Markdown: value, interval in brackets, what surely leads in bold."""
    lines = [["method", *(column.heading for column in table.columns)]]
    lines.append(["---"] + ["---:"] * len(table.columns))
    for label, cells in zip(row_labels(table), table.cells, strict=True):
        written = [label.replace("|", "\\|")]
        for cell in cells:
            value = f"**{cell.value}**" if cell.best else cell.value
            written.append(f"{value} ({cell.interval})" if cell.interval else value)
        lines.append(written)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(table: Table) -> str:
    """Return the table as a LaTeX tabular for the package booktabs."""
    headings = " & ".join(["method", *(_latex_text(column.heading) for column in table.columns)])
    body = []
    for label, cells in zip(row_labels(table), table.cells, strict=True):
        written = [_latex_text(label)]
        for cell in cells:
            value, interval = _latex_number(cell.value), _latex_number(cell.interval)
            value = rf"\textbf{{{value}}}" if cell.best else value
            written.append(rf"{value} {{\scriptsize ({interval})}}" if interval else value)
        body.append(" & ".join(written) + r" \\")
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            headings + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _latex_number(text: str) -> str:
    return text.replace("–", "--").replace("\u2212", "$-$").replace("∞", r"$\infty$")


def _latex_text(text: str) -> str:
    escaped = {character: "\\" + character for character in "&%$#_{}"}
    escaped["\\"] = r"\textbackslash{}"
    return text.translate(str.maketrans(escaped))


def plain_text(table: Table) -> str:
    """Return the table for a terminal: one word of the heading a line, intervals under values."""
    headings = [column.heading.replace(",", "").split() for column in table.columns]
    height = max(map(len, headings), default=1)
    lines = [
        ["", *(words[place] if place < len(words) else "" for words in headings)]
        for place in range(height)
    ]
    lines[-1][0] = "method"
    for label, cells in zip(row_labels(table), table.cells, strict=True):
        lines.append([label, *(cell.value + ("*" if cell.best else " ") for cell in cells)])
        lines.append(["", *(cell.interval + " " for cell in cells)])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    written = [
        " ".join(
            [line[0].ljust(widths[0])]
            + [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    ]
    written.insert(height, "-" * max(len(line) for line in written))
    return "\n".join(written) + "\n* surely the best of the model; the interval stands below\n"


class Published(NamedTuple):
    """Published figures to stand beside ours: `table` is None where none may; `note` says why."""

    table: Table | None
    note: str


def published_figures(
    published: pd.DataFrame, models: list[str], continuations: int, trained_judges: bool
) -> Published:
    """Return the published figures of `models`, whose setting the experiment has.

    `published` has the columns model, method, benchmark, split, metric, value, continuations
    and source. None stand beside ours where `models` is empty, and none where the judges are
    classifiers trained here. Figures measured with another number of continuations are left out,
    because EMT and TP depend on it.
    """
    known = ", ".join(dict.fromkeys(published["model"]))
    none = "No published figures stand beside ours: "
    if not models:
        return Published(
            None,
            f"{none}config key report.published_models names no model. Those published are of "
            f"{known}, trained on 1 billion tokens of OpenWebText and judged by published "
            "classifiers; name one where the experiment repeats that setting.",
        )
    if trained_judges:
        return Published(
            None,
            f"{none}classifiers trained here judge these continuations, and published ones those.",
        )
    comparable = published["continuations"].isna() | (published["continuations"] == continuations)
    rows = published[comparable & published["model"].isin(models)]
    if rows["continuations"].isna().all():
        return Published(
            None,
            f"{none}there are none of {', '.join(models)} with {continuations} continuations a "
            f"prompt; there are those of {known}.",
        )
    keys = ["benchmark", "metric", "split"]
    columns = [
        Column(f"{metric.replace('_', ' ')}, {split}", benchmark, metric, split, 0, 3)
        for benchmark, metric, split in rows[keys].drop_duplicates().itertuples(index=False)
    ]
    values = {
        (row["model"], row["method"], *(row[key] for key in keys)): row["value"]
        for row in rows.to_dict("records")
    }
    labels = list(dict.fromkeys(rows[["model", "method"]].itertuples(index=False, name=None)))
    cells = [
        [
            Cell(NOT_MEASURED if (value := values.get(key)) is None else f"{value:g}", "", False)
            for column in columns
            for key in [(*label, column.benchmark, column.metric, column.split)]
        ]
        for label in labels
    ]
    sources = "; ".join(dict.fromkeys(rows["source"]))
    names = [("published", " / ".join(label)) for label in labels]
    table = Table(columns, names, cells, [1] * len(names))
    return Published(table, f"Published figures are second-hand: {sources}.")
