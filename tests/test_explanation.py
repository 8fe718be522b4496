"""Explanations of a selection: against Algorithm 1 as it is written, and of a finished run."""

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from conftest import TINY, copy_run, environment, error_line, run_snakemake
from ifguide.data.corpus import shard_name
from ifguide.files.artifacts import read_json, read_jsonl, write_array, write_json
from ifguide.files.checksums import joined_sha256, read_checksums
from ifguide.influence.explanation import Reason, lower_scores, occurrences, token_reasons
from ifguide.influence.selection import select_pieces
from ifguide.report.explanation_text import ExplainedDocument, document_text
from test_selection import corpora


def literal_reasons(scores, owners, order, threshold, window, limit):
    """Algorithm 1 as it is written, keeping a record of what it does with each token."""
    taken, source, reasons = 0, {}, {}
    for document in order:
        own = [j for j, owner in enumerate(owners) if owner == document]
        before = taken
        for j in own:
            if not scores[j] > threshold:
                continue
            for k in range(j - window, j + window + 1):
                if k not in own or k in source:
                    continue
                source[k] = j
                if taken < limit:
                    taken += 1
                    above = scores[k] > threshold
                    reasons[k] = Reason.ABOVE if above else Reason.IN_WINDOW
                else:
                    reasons[k] = Reason.CUT_BEFORE if before == limit else Reason.CUT_WITHIN
    return reasons, source


@settings(max_examples=300, deadline=None)
@given(
    corpora(),
    st.integers(0, 9),
    st.one_of(st.sampled_from([0, 1, 10**9]), st.integers(0, 20)),
    st.floats(-2, 2),
)
def test_reasons_are_those_of_the_algorithm_and_give_its_mask(corpus, window, limit, threshold):
    scores, documents, count, cuts = corpus
    masks, ranking, selected = select_pieces(
        np.split(scores, cuts),
        np.split(documents, cuts),
        threshold=threshold,
        window=window,
        limit=limit,
        document_count=count,
    )
    mask, flat, owners = np.concatenate(list(masks)), scores.reshape(-1), documents.reshape(-1)
    reasons, sources = literal_reasons(
        flat.tolist(), owners.tolist(), ranking.documents.tolist(), threshold, window, limit
    )
    for document in range(count):
        places = np.flatnonzero(owners == document)
        found = token_reasons(
            flat[places],
            candidates=np.ones(len(places), bool),
            threshold=threshold,
            window=window,
            allotment=int(selected[document]),
        )
        np.testing.assert_array_equal(found.selected, mask[places])
        assert found.reasons == [reasons.get(place, Reason.BELOW) for place in places.tolist()]
        assert found.above.tolist() == (flat[places].astype(np.float64) > threshold).tolist()
        expected = [sources[place] - places[0] if place in sources else -1 for place in places]
        assert found.sources.tolist() == expected


def test_a_special_token_is_never_selected():
    scores = np.array([0, 9, 9, 0, 0], np.float32)
    candidates = np.array([True, True, False, True, True])
    found = token_reasons(scores, candidates=candidates, threshold=1, window=1, allotment=2)
    assert found.selected.tolist() == [True, True, False, False, False]
    assert found.reasons[2] is Reason.NO_CANDIDATE
    # It does not flag its neighbours either.
    assert found.reasons[3] is Reason.BELOW


@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([-1, -0.0, 0, 0.5, 3])),
    st.integers(1, 5),
)
def test_lower_scores_are_counted_one_by_one(values, parts):
    asked = np.array([0.5, -1, 0, 0.5, 9], np.float32)
    lower, total = lower_scores(asked, np.array_split(values, parts))
    assert total == len(values)
    assert lower.tolist() == [int((values < score).sum()) for score in asked]


def test_a_phrase_is_found_in_any_case_and_spacing():
    text = "The Old  Drum. the old\ndrum? [old drum]"
    assert list(occurrences("old drum", text)) == [(4, 13), (19, 27), (30, 38)]
    assert list(occurrences("[OLD", text)) == [(29, 33)]
    assert list(occurrences(" ", text)) == []


def explained(tokens, scores, *, threshold, window, allotment):
    scores = np.array(scores, np.float32)
    return ExplainedDocument(
        unit="block",
        number=7,
        rank=3,
        ranked=1200,
        flagged=2,
        flagged_sum=5.0,
        tokens=tokens,
        scores=scores,
        ranking=scores,
        quantiles=np.linspace(0, 1, len(scores)),
        reasons=token_reasons(
            scores,
            candidates=np.ones(len(scores), bool),
            threshold=threshold,
            window=window,
            allotment=allotment,
        ),
        shown=np.arange(len(scores)),
        asked=np.arange(len(scores)) == 1,
    )


def test_the_text_says_why_and_nothing_in_it_acts_on_the_terminal():
    tokens = ["A", " fool", " said", "\x1b[2J\u202e", " end"]
    document = explained(tokens, [0, 3, 2, -1, 0], threshold=1, window=1, allotment=3)
    plain = document_text(document, 1, colour=False)
    heading = "block 7: rank 3 of 1,200; 2 tokens above the threshold (scores sum to 5), 3 of 5"
    assert plain.startswith(heading) and r"[A fool said]\x1b[2J\u202e end" in plain
    lines = plain.splitlines()[-5:]
    assert lines[0].endswith("yes      within 1 of token 1 ' fool'")
    assert lines[1].startswith("> ") and lines[1].endswith("yes      above the threshold")
    # Both reached by its neighbour and above the threshold itself.
    assert lines[2].endswith("' said'         yes      above the threshold")
    assert lines[3].endswith(
        "no       within 1 of token 2 ' said', but the limit was reached earlier in the document"
    )
    assert lines[4].endswith("no       not above the threshold")
    nothing = explained(tokens, [0, 3, 2, -1, 0], threshold=1, window=0, allotment=0)
    lines = document_text(nothing, 0, colour=False).splitlines()[-5:]
    assert lines[2].endswith(
        "no       above the threshold, but documents ranked before it take all of the limit"
    )
    assert "\x1b" not in plain and "\u202e" not in plain
    coloured = document_text(document, 1, colour=True)
    assert "\x1b[1;4;38;5;16;48;5;208m fool\x1b[0m" in coloured and "\x1b[2J" not in coloured


# --- a finished run ---


def explain(clone, *arguments, **variables):
    return subprocess.run(
        [sys.executable, "scripts/explain.py", "--results", "results/tiny", *map(str, arguments)],
        cwd=clone,
        env=environment() | variables,
        capture_output=True,
        text=True,
        check=False,
    )


SELECTED = "results/tiny/influence/proxy/differential/top"


def test_a_document_is_explained_as_it_was_selected(finished):
    ranking = pd.read_csv(finished / SELECTED / "documents.csv")
    for row in (ranking.iloc[0], ranking[ranking["selected"] == 0].iloc[0]):
        ran = explain(finished, "--method", "ifguide", "--document", int(row["document"]))
        assert ran.returncode == 0, ran.stderr
        assert (
            f"block {row['document']:.0f}: rank {row['rank']:,.0f} of {len(ranking):,}"
            in ran.stdout
        )
        decisions = re.findall(r"['\"] +(yes|no)  ", ran.stdout.partition(" selected why\n")[2])
        assert decisions.count("yes") == row["selected"] and len(decisions) <= 128
        assert "\x1b" not in ran.stdout


def test_a_phrase_is_explained_where_it_occurs(finished):
    record = read_jsonl(finished / "results/tiny/corpus/documents.jsonl")[4]
    phrase = " ".join(record["text"].split()[1:15])
    ran = explain(finished, "--phrase", phrase.upper())
    assert ran.returncode == 0, ran.stderr
    assert "1 of 1 occurrences shown" in ran.stdout
    marked = [line for line in ran.stdout.splitlines() if line.startswith(">")]
    assert "".join(line.split("'")[1] for line in marked).split() == phrase.split()


def test_a_terminal_gets_colours_unless_it_asks_for_none(finished):
    def in_terminal(**variables):
        master, slave = pty.openpty()
        command = [sys.executable, "scripts/explain.py", "--results", "results/tiny"]
        running = subprocess.Popen(
            [*command, "--document", "0"],
            cwd=finished,
            env=environment() | variables,
            stdout=slave,
            stderr=subprocess.DEVNULL,
        )
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 1 << 16)
            except OSError:  # the end of a terminal
                break
            if not piece:
                break
            shown += piece
        assert running.wait() == 0
        os.close(master)
        return shown

    assert b"\x1b[" in in_terminal(NO_COLOR="")
    assert b"\x1b[" not in in_terminal(NO_COLOR="1")


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--document", "100000"], "--document: 100000 is no block of this corpus;"),
        (["--phrase", "nobody wrote this"], "--phrase: 'nobody wrote this' is nowhere in"),
        (["--phrase", "  "], "--phrase: is empty"),
        (["--method", "dpo", "--document", "0"], "--method: dpo suppresses no tokens by "),
        (["--method", "absent", "--document", "0"], "--method: 'absent' is none of none, "),
        (["--method", "repair", "--document", "0"], "/wide: no selection.json; make it by"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_one_line(finished, arguments, expected):
    ran = explain(finished, *arguments)
    assert ran.returncode == 1
    assert expected in error_line(ran.stderr) and "Traceback" not in ran.stderr


def test_a_mask_that_its_scores_do_not_give_is_refused(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    path = clone / SELECTED / "mask" / shard_name(0)
    mask = np.load(path)
    mask[0] ^= True
    record = read_json(clone / SELECTED / "selection.json")
    write_array(path, mask)
    lines = read_checksums(path.parent)
    record["mask_sha256"] = joined_sha256(lines[name] for name in sorted(lines))
    write_json(clone / SELECTED / "selection.json", record)
    ran = explain(clone, "--document", "0")
    assert "the mask of block 0 is not what its scores and settings give" in error_line(ran.stderr)


def test_source_documents_are_explained_with_weighted_scores(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    (clone / "overlay.yaml").write_text(
        "influence: {selections: {wide: {token_weight: inverse_document_frequency, pooling: 0.5}}}",
        encoding="utf-8",
    )
    folder = "results/tiny/influence/proxy/differential/wide"
    ran = run_snakemake(
        clone, f"{folder}/selection.json", "--configfile", TINY, "overlay.yaml", "--cores", "1"
    )
    assert ran.returncode == 0, ran.stdout
    ranking = pd.read_csv(clone / folder / "documents.csv")
    best = int(ranking["document"].iloc[0])
    ran = explain(clone, "--method", "repair", "--document", best)
    assert ran.returncode == 0, ran.stderr
    assert (
        f"document {best}: rank 1 of {len(ranking):,}" in ran.stdout and "ranked by" in ran.stdout
    )
