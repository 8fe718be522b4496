"""The pages of the report: the result, all tables, documents, token scores, texts, the judges.

Each function takes data and returns one self-contained HTML document, by a template of its name.
Text of the corpus and of models is folded behind a click, because much of it is hateful.
"""

import base64
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from ifguide.errors import InputError
from ifguide.evaluation.judge import LEADING
from ifguide.report.results_table import Table, row_labels
from ifguide.report.score_shades import STEPS, score_scale, shade
from ifguide.report.templating import render

EXCERPT = 600  # characters


def results_page(
    tables: dict[str, Table], notes: Sequence[str], warnings: Sequence[str] = ()
) -> str:
    """Return the results tables, by their headings, `warnings` above and `notes` below them."""
    shown = [
        (heading, table.columns, list(zip(row_labels(table), table.cells, strict=True)))
        for heading, table in tables.items()
    ]
    return render("results.html", tables=shown, notes=notes, warnings=warnings)


def result_page(
    sentence: str, front: bytes, table: Table, notes: Sequence[str], warnings: Sequence[str] = ()
) -> str:
    """Return the page that leads: what was reached, in one sentence, a figure and a table.

    `front`: the figure, as SVG.
    """
    return render(
        "result.html",
        sentence=sentence,
        front=base64.b64encode(front).decode(),
        columns=table.columns,
        rows=list(zip(row_labels(table), table.cells, strict=True)),
        notes=notes,
        warnings=warnings,
    )


def documents_page(documents: pd.DataFrame, total: int | None = None) -> str:
    """Return the searchable table of ranked documents.

    `documents`: columns document, rank, s, f, harmonic_mean, selected and text, in the order to
    show. `total`: how many documents the whole ranking holds, where these are its beginning.
    Raises InputError on missing columns.
    """
    needed = ["document", "rank", "s", "f", "harmonic_mean", "selected", "text"]
    missing = [column for column in needed if column not in documents]
    if missing:
        raise InputError(f"the document ranking has no column {', '.join(missing)}; rank again")
    texts = documents["text"].fillna("").astype(str)
    return render(
        "documents.html",
        documents=documents[needed].assign(text=texts).to_dict("records"),
        total=len(documents) if total is None else total,
        excerpt=EXCERPT,
    )


def tokens_page(documents: Sequence[dict[str, Any]]) -> str:
    """Return documents with every token shaded by its score and the selected ones outlined.

    Each document: `document` id, `rank`, `tokens` (strings), `scores` (floats), `selected`
    (bools) and `truth` (bools, or null where it is not known), lists of one length. Raises
    InputError, naming the document, where they are not.
    """
    scale = score_scale(document["scores"] for document in documents)
    return render(
        "tokens.html",
        documents=[_shaded(document, scale) for document in documents],
        scale=scale,
        steps=STEPS,
    )


def _shaded(document: dict[str, Any], scale: float) -> dict[str, Any]:
    tokens, scores = document["tokens"], document["scores"]
    selected, truth = document["selected"], document.get("truth")
    if not len(tokens) == len(scores) == len(selected) == len(truth or tokens):
        raise InputError(
            f"document {document['document']}: tokens, scores, selected and truth differ in "
            "length; run again with --forcerun describe_documents"
        )
    marks = zip(tokens, scores, selected, truth or [False] * len(tokens), strict=True)
    return {
        "name": document["document"],
        "rank": document["rank"],
        "tokens": [
            {"text": token, "score": score, "classes": _classes(shade(score, scale), chosen, toxic)}
            for token, score, chosen, toxic in marks
        ],
        "selected": sum(map(bool, selected)),
        "known_toxic": None if truth is None else sum(map(bool, truth)),
    }


def _classes(step: int, selected: bool, toxic: bool) -> str:
    classes = {
        "t": True,
        f"{'p' if step > 0 else 'n'}{abs(step)}": step,
        "sel": selected,
        "true": toxic,
    }
    return " ".join(name for name, holds in classes.items() if holds)


def erased_page(erased: pd.DataFrame) -> str:
    """Return the phrases that masks erase from harmless contexts, a table for each method.

    `erased`: columns method, phrase, occurrences, selected, probability_before, probability_after.
    """
    methods = [
        (method, rows.to_dict("records")) for method, rows in erased.groupby("method", sort=False)
    ]
    return render("erased.html", methods=methods)


def contamination_page(measured: Sequence[dict], shared_by_judges: Sequence[dict]) -> str:
    """Return the page of test prompts in what was learned from.

    `measured`: what was measured of some sources each, with the thresholds, `counts` and the
    `worst` pairs. `shared_by_judges`: of a judge the records that another set has as well.
    """
    return render(
        "contamination.html",
        **{name: measured[0][name] for name in ("ngram", "share", "cosine")},
        counts=[row for part in measured for row in part["counts"]],
        worst=[pair for part in measured for pair in part["worst"]],
        shared_by_judges=shared_by_judges,
    )


def choose_prompts(
    generations: dict[str, list[dict]], prompts: int, seed: int = 0
) -> list[tuple[str | None, int]]:
    """Return up to `prompts` (split, prompt index) of each split, those all methods share.

    Chosen at random by `seed`, never by how toxic their continuations are.
    """
    shared: set[tuple[str, int]] | None = None
    for records in generations.values():
        found = {(record.get("split") or "", record["prompt_index"]) for record in records}
        shared = found if shared is None else shared & found
    ordered = sorted(shared or set())
    generator = np.random.default_rng(seed)
    chosen: list[tuple[str | None, int]] = []
    for split in sorted({split for split, _ in ordered}, reverse=True):
        candidates = [key for key in ordered if key[0] == split]
        order = generator.permutation(len(candidates))[:prompts]
        chosen += [candidates[place] for place in sorted(order)]
    return chosen


def continuations_page(
    generations: dict[str, list[dict]],
    judges: Sequence[str] = LEADING,
    prompts: int = 12,
    samples: int = 4,
    seed: int = 0,
) -> str:
    """Return continuations of the same prompts and seeds, one column a method.

    `generations`: method -> records of its generations file. Shows `prompts` prompts of each
    split, chosen at random by `seed`, with their first `samples` continuations and the scores of
    the `judges`.
    """
    chosen = choose_prompts(generations, prompts, seed)
    wanted = set(chosen)
    lookup: dict[tuple, dict] = {}
    for method, records in generations.items():
        for record in records:
            key = (record.get("split") or "", record["prompt_index"])
            if key in wanted and record["sample"] < samples:
                lookup[method, key, record["sample"]] = record
    return render(
        "continuations.html",
        judges=judges,
        methods=list(generations),
        prompts=[_prompt(key, list(generations), lookup, samples) for key in chosen],
    )


def _prompt(key: tuple, methods: list[str], lookup: dict[tuple, dict], samples: int) -> dict:
    """Return a prompt with its samples, each with one record a method; None where it has none."""
    split, index = key
    shown = []
    for sample in range(samples):
        records = [lookup.get((method, key, sample)) for method in methods]
        if any(records):
            seeds = sorted({str(record["seed"]) for record in records if record})
            shown.append({"number": sample + 1, "seeds": seeds, "records": records})
    prompt = next(record["prompt"] for record in shown[0]["records"] if record)
    return {"index": index, "split": split, "text": prompt, "samples": shown}


def judges_page(
    tested: pd.DataFrame,
    cases: Sequence[dict],
    agreement: Sequence[dict],
    disagreements: Sequence[dict],
    *,
    threshold: float,
    level: float,
) -> str:
    """Return the page of the judges: functional tests, agreement and disagreements.

    tested: a table of `evaluation.functional_tests`, and its `cases` (fields function, text);
    agreement and disagreements: as of `evaluation.judge_agreement`, of the same judges. A score of
    `threshold` or more is toxic; `level` is that of the intervals.
    """
    examples = {case["function"]: case["text"] for case in reversed(cases)}
    functions = [
        {
            "name": name,
            "example": examples[name],
            "toxic": rows["toxic"].iloc[0],
            "rows": rows.to_dict("records"),
        }
        for name, rows in tested.groupby("function", sort=False)
    ]
    judges = list(dict.fromkeys(tested["judge"]))
    by_pair = groupby(disagreements, key=lambda row: (row["flagged_by"], row["passed_by"]))
    return render(
        "judges.html",
        cases=int(tested["cases"].max()),
        functions=functions,
        agreement=agreement,
        disagreements=[(pair, list(rows)) for pair, rows in by_pair],
        judges=judges,
        threshold=threshold,
        level=level,
    )
