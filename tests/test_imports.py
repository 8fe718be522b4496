"""What starting a script costs: the heavy libraries that it may import before it begins."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"

TABLES = {"pandas"}
FIGURES = {"pandas", "matplotlib"}
TOKENS = {"transformers"}
TOKENS_AND_TABLES = TOKENS | TABLES
TENSORS = {"transformers", "torch"}
# The modelling code of transformers, which brings PyTorch's compiler with it.
MODELS = TENSORS | {"transformers.modeling_utils", "torch._dynamo"}
# The Trainer brings datasets, and that pandas.
TRAINING = MODELS | {"transformers.trainer", "accelerate", "datasets", "pandas"}
HEAVY = TRAINING | FIGURES | {"scipy.stats", "sklearn", "trl", "detoxify", "snakemake"}

# By script: which of them it may import. scipy.stats comes with the modelling code; the special
# functions of scipy, which intervals need, are light.
MAY_IMPORT = {
    **dict.fromkeys(
        [
            *("check_disjoint", "fetch_file", "fetch_repository", "plant"),
            *("read_documents", "read_pairs", "read_prompts", "read_texts", "build_report"),
            "write_config_reference",
        ],
        set(),
    ),
    "measure_toxicity": set(),
    **dict.fromkeys(["write_pages", "write_result"], TABLES),
    **dict.fromkeys(["summarize", "tabulate_lasting", "write_results_page"], TABLES),
    "list_jobs": TABLES | {"snakemake"},
    **dict.fromkeys(["draw_figures", "draw_study"], FIGURES),
    **dict.fromkeys(
        [
            *("average_scores", "check_prompt_lengths", "make_tokenizer", "measure_removal"),
            *("random_tokens", "tokenize_documents", "tokenize_part", "transfer_mask"),
            *("export_labels", "export_spans", "write_card"),
        ],
        TOKENS,
    ),
    **dict.fromkeys(
        ["describe_documents", "explain", "make_corpus", "measure_attribution", "select_tokens"],
        TOKENS_AND_TABLES,
    ),
    **dict.fromkeys(["classify_continuations", "classify_documents"], TENSORS),
    "measure_judges": TABLES,
    **dict.fromkeys(
        [
            *("correct_eigenvalues", "decompose_covariances", "generate_continuations"),
            *("make_direction", "measure_device", "measure_fluency"),
            *("measure_proxy_agreement", "measure_query_gradient", "merge_factors"),
            *("measure_activations", "prepare_decoding", "sample_own_generations"),
            *("measure_loss_curve", "measure_relearning"),
            *("score_tokens", "sum_covariances", "take_model"),
        ],
        MODELS | {"scipy.stats", "accelerate"},
    ),
    **dict.fromkeys(
        ["measure_agreement", "measure_erasure", "plan"],
        MODELS | TABLES | {"scipy.stats", "accelerate"},
    ),
    "preflight": MODELS | {"scipy.stats", "accelerate"},
    "measure_contamination": {"sklearn", "scipy.stats", "pandas"},
    "fit_probe": TENSORS | TABLES | {"scipy.stats", "sklearn"},
    **dict.fromkeys(
        ["adopt_detoxify", "make_model", "score_rival", "train_classifier", "train_reward"],
        TRAINING | {"scipy.stats"},
    ),
}
GROUPS = list(dict.fromkeys(map(frozenset, MAY_IMPORT.values())))

# One after another, so that each library is loaded once: the first to import it is the one to tell.
IMPORTED = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    before = set(sys.modules)
    importlib.import_module(name)
    print(json.dumps([name, sorted(set(sys.modules) - before)]))
"""


def imported_by(scripts: list[str]) -> dict[str, set[str]]:
    """The modules that each of some scripts imports and none before it does."""
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTED, str(SCRIPTS), *scripts],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: set(modules) for name, modules in map(json.loads, ran.stdout.splitlines())}


def test_every_script_is_bounded():
    assert set(MAY_IMPORT) == {path.stem for path in SCRIPTS.glob("*.py")}


@pytest.mark.parametrize("allowed", GROUPS, ids=lambda group: "+".join(sorted(group)) or "none")
def test_a_script_imports_no_heavy_library_that_it_does_not_need(allowed):
    scripts = [name for name, may in MAY_IMPORT.items() if may == allowed]
    found = imported_by(scripts)
    assert {name: modules & HEAVY - allowed for name, modules in found.items()} == dict.fromkeys(
        scripts, set()
    )


def test_a_script_imports_the_command_line_before_all_else():
    """Else the garbage collector runs while the libraries before it are imported."""
    for path in SCRIPTS.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "ifguide.workflow.command_line" in text:
            first = next(line for line in text.splitlines() if line.startswith(("import", "from")))
            assert first.startswith("from ifguide.workflow.command_line import "), path


def test_garbage_is_collected_again_once_a_script_runs():
    code = (
        "import gc, sys\n"
        "usual = gc.get_threshold()\n"
        "from ifguide.workflow.command_line import argument_parser, run\n"
        "assert gc.get_threshold() > usual\n"
        "run(lambda _: print(gc.get_threshold() == usual, gc.isenabled()), argument_parser(''))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "True True"
