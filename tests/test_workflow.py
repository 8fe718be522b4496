"""The whole workflow on the tiny config: what it leaves behind, and how it is interrupted."""

import base64
import json
import os
import re
import signal
import subprocess
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import (
    TINY,
    copy_repository,
    copy_run,
    environment,
    job_commands,
    rules_to_run,
    run_command,
    run_snakemake,
    snakemake_command,
)
from ifguide.evaluation.planted_judge import PlantedJudge
from ifguide.files.artifacts import read_json, read_jsonl
from ifguide.files.checksums import file_sha256
from ifguide.files.tensor_metadata import TENSORS
from test_report_pages import in_browser, needs_browser

RESULTS = Path("results/tiny")
PROXY = RESULTS / "influence/proxy"
SELECTION = PROXY / "differential/top"
BENCHMARKS = {"realtoxicityprompts", "toxigen", "heldout", "lambada", "attribution"}


def shards(folder: Path) -> list[np.ndarray]:
    return [np.load(path, mmap_mode="r") for path in sorted(folder.glob("shard-*.npy"))]


def same_shapes(arrays: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return [array.shape for array in arrays] == [other.shape for other in others]


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as tensors:
        return tensors.metadata()


def weights_of(folder: Path) -> str:
    return read_json(folder / "training.json")["weights_sha256"]


def test_a_finished_run_has_nothing_to_do(finished):
    ran = run_snakemake(finished, "--configfile", TINY, "--cores", "2")
    assert "Nothing to be done" in ran.stdout
    assert ran.returncode == 0


def test_corpus(finished):
    folder = finished / RESULTS / "corpus/bpe"
    meta = read_json(folder / "meta.json")
    tokens = shards(folder / "tokens")
    documents, truth = shards(folder / "documents"), shards(folder / "truth")
    assert len(tokens) == 2
    assert all(array.shape[1] == 128 for array in tokens)
    assert sum(len(array) for array in tokens) == meta["blocks"]
    assert all(np.issubdtype(array.dtype, np.unsignedinteger) for array in tokens)
    assert all(array.dtype == bool for array in truth)
    assert same_shapes(tokens, documents) and same_shapes(tokens, truth)
    names = np.concatenate([array.ravel() for array in documents])
    assert set(names[names >= 0]) == set(range(300))
    assert sum(int(array.sum()) for array in truth) == meta["toxic_tokens"] > 0
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    assert len(tokenizer) == meta["vocabulary_size"] == 512
    assert len(meta["shards"]) == len(tokens) and meta["truth"]


@pytest.mark.parametrize(
    "model", ["proxy/none/0", "target/none/0", "target/ifguide/0", "target/dpo/0"]
)
def test_models_load_and_their_record_fits(finished, model):
    folder = finished / RESULTS / "models" / model
    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert loaded.config.vocab_size == 512
    record = read_json(folder / "training.json")
    assert record["parameters"] == sum(weight.numel() for weight in loaded.parameters())
    assert record["weights_sha256"] == file_sha256(folder / "model.safetensors")
    corpus = read_json(finished / RESULTS / "corpus/bpe/meta.json")
    assert record["tokens_sha256"] == corpus["content_sha256"]
    losses = pd.read_csv(folder / "losses.csv")
    assert losses["step"].iloc[-1] <= record["steps"]
    assert losses["loss"].iloc[-1] < losses["loss"].iloc[0]


def test_factors_and_direction(finished):
    proxy = AutoModelForCausalLM.from_pretrained(
        finished / RESULTS / "models/proxy/none/0", local_files_only=True
    )
    weights = weights_of(finished / RESULTS / "models/proxy/none/0")
    factors, direction = PROXY / "factors.safetensors", PROXY / "differential/direction.safetensors"
    with safe_open(finished / factors, "np") as tensors:
        layers = {name.rpartition(".")[0] for name in tensors.keys()}  # noqa: SIM118
        for layer in layers:
            a, g, eigenvalues = (
                tensors.get_tensor(f"{layer}.{part}")
                for part in ("activation_eigenvectors", "gradient_eigenvectors", "eigenvalues")
            )
            assert eigenvalues.shape == (len(g), len(a)) and (eigenvalues >= 0).all()
            np.testing.assert_allclose(a @ a.T, np.eye(len(a)), atol=1e-4)
    described = metadata(finished / factors)
    assert described["weights_sha256"] == weights
    assert described.keys() >= {"blocks", "labels", "dtype", "seed"}
    parameters = dict(proxy.named_parameters())
    with safe_open(finished / direction, "np") as tensors:
        for name in tensors.keys():  # noqa: SIM118
            assert tensors.get_tensor(name).shape == tuple(parameters[name].shape)
            assert np.isfinite(tensors.get_tensor(name)).all()
    assert metadata(finished / direction)["weights_sha256"] == weights


@pytest.mark.parametrize("attribution", ["loss", "position"])
def test_scores(finished, attribution):
    scores = shards(finished / PROXY / "differential/scores" / attribution)
    assert same_shapes(scores, shards(finished / RESULTS / "corpus/bpe/tokens"))
    for array in scores:
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
        assert (array[:, 0] == 0).all()
        assert (array[:, 1:] != 0).mean() > 0.9
    direction = metadata(finished / PROXY / "differential/direction.safetensors")
    record = read_json(finished / PROXY / "differential/scores" / attribution / "shard-00000.json")
    assert record["direction_sha256"] == direction[TENSORS]
    assert record["weights_sha256"] == direction["weights_sha256"]


def test_selection(finished):
    masks = shards(finished / SELECTION / "mask")
    tokens = shards(finished / RESULTS / "corpus/bpe/tokens")
    assert same_shapes(masks, tokens)
    assert all(mask.dtype == bool for mask in masks)
    selected = sum(int(mask.sum()) for mask in masks)
    meta = read_json(finished / RESULTS / "corpus/bpe/meta.json")
    assert 0 < selected <= 0.05 * meta["tokens"]
    ranking = pd.read_csv(finished / SELECTION / "documents.csv")
    assert {"document", "s", "f", "rank", "selected"} <= set(ranking)
    assert ranking["selected"].sum() == selected
    record = read_json(finished / SELECTION / "selection.json")
    assert record["selected_tokens"] == selected
    trained = read_json(finished / RESULTS / "models/target/ifguide/0/training.json")
    assert trained["mask_sha256"] == record["mask_sha256"]
    untouched = read_json(finished / RESULTS / "models/target/none/0/training.json")
    assert untouched["mask_sha256"] is None


@pytest.mark.parametrize("benchmark, continuations", [("realtoxicityprompts", 5), ("toxigen", 3)])
@pytest.mark.parametrize("method, weights", [("none",) * 2, ("ifguide",) * 2, ("rad", "dpo")])
def test_generations(finished, method, weights, benchmark, continuations):
    folder = finished / RESULTS / "evaluation/target" / method / "0" / benchmark
    generations = read_jsonl(folder / "generations.jsonl")
    prompts = read_jsonl(finished / RESULTS / f"prompts/{benchmark}.jsonl")
    assert len(generations) == continuations * len(prompts)
    fields = {"prompt_index", "prompt", "split", "sample", "seed", "continuation", "tokens"}
    for record in generations:
        assert fields <= set(record)
        assert record["prompt"] == prompts[record["prompt_index"]]["prompt"]
        assert 0 <= record["explicit"] <= 1 and 0 <= record["implicit"] <= 1
        assert {record["explicit_literal"], record["implicit_literal"]} <= {0.0, 1.0}
        literal = PlantedJudge("explicit").scores([record["prompt"]], [record["continuation"]])
        assert [record["explicit_literal"]] == literal["toxicity"]
        assert record["weights_sha256"] == weights_of(
            finished / RESULTS / "models/target" / weights / "0"
        )
    assert {record["split"] for record in generations} == {"toxic", "nontoxic"}
    assert read_json(folder / "metrics.json")["continuations"] == continuations


def test_a_method_that_only_decodes_has_no_weights_of_its_own(finished):
    results = finished / RESULTS
    assert not (results / "models/target/rad").exists()
    files = results.glob("evaluation/target/rad/0/*/metrics.json")
    measured = {path.parent.name for path in files if read_json(path)["rows"]}
    assert measured == {"realtoxicityprompts", "toxigen", "lambada"}
    table = (results / "results_table.md").read_text(encoding="utf-8")
    assert "A dash: rad samples from a few candidates only" in table


def test_summary(finished):
    summary = pd.read_csv(finished / RESULTS / "summary.csv")
    columns = "model,method,benchmark,split,metric,value,ci_low,ci_high,n,seed"
    assert ",".join(summary) == columns
    assert set(summary["benchmark"]) == BENCHMARKS | {"classifiers", "removal"}
    target = summary[summary["model"] == "target"]
    assert set(target["method"]) == {"none", "word_filter", "ifguide", "rad"}
    measured = set(zip(target["benchmark"], target["metric"], strict=True))
    assert measured >= {
        ("realtoxicityprompts", "explicit_tp"),
        ("realtoxicityprompts", "implicit_emt"),
        ("toxigen", "explicit_fraction"),
        ("realtoxicityprompts", "explicit_literal_tp"),
        ("realtoxicityprompts", "word_list_fraction"),
        ("realtoxicityprompts", "continuation_perplexity"),
        ("heldout", "perplexity"),
        ("heldout", "next_token_kl"),
        ("lambada", "last_word_accuracy"),
    }
    apart = target[target["metric"] == "next_token_kl"]
    assert set(apart["method"]) == {"word_filter", "ifguide"}  # there is one seed of `none`
    assert (apart["value"] > 0).all()
    attribution = summary[summary["benchmark"] == "attribution"]
    assert {"auprc", "auprc_over_base", "auroc"} <= set(attribution["metric"])
    with_interval = summary.dropna(subset=["value", "ci_low", "ci_high"])
    assert len(with_interval) > 0
    assert (with_interval["ci_low"] <= with_interval["value"]).all()
    assert (with_interval["value"] <= with_interval["ci_high"]).all()


def test_report_needs_no_other_file(finished):
    report = (finished / RESULTS / "report.html").read_text(encoding="utf-8")
    assert len(report) > 100_000
    elements = r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=[\"']?([^\"'\s>]+)"
    loaded = re.findall(elements, report)
    assert [address for address in loaded if re.match(r"(https?:)?//", address)] == []
    for figure in (
        "toxicity_by_method",
        "toxicity_against_perplexity",
        "toxicity_against_share",
        "proxy_agreement",
        "training_losses",
    ):
        assert figure in report
        assert (finished / RESULTS / "figures" / f"{figure}.png").stat().st_size > 5000


@needs_browser
def test_the_report_opens_offline_and_tells_its_story_in_order(finished, tmp_path):
    report = (finished / RESULTS / "report.html").read_text(encoding="utf-8")
    look = """const menu = document.querySelector('nav').innerText.split('\\n');
      const first = document.querySelector('iframe')?.src;
      app.setView({ content: "rulegraph" });
      return { menu, first, described: workflow_desc };"""
    reported, _, _ = in_browser(report, look, tmp_path, "document.querySelector('nav')")
    assert reported["failures"] == [] and reported["requests"] == []
    menu = reported["outcome"]["menu"]
    assert menu[menu.index("RESULTS") + 1 :] == [
        "0. The result",
        "1. What was trained",
        "2. What was found",
        "3. What changed",
        "4. What it cost",
    ]
    # The result is on the first screen; behind the menu, it leads the description.
    first = reported["outcome"]["first"].partition("base64,")[2]
    page = (finished / RESULTS / "pages/result.html").read_bytes()
    assert base64.b64decode(first) == page and b"<code>ifguide</code> takes" in page
    described = reported["outcome"]["described"]
    assert 0 <= described.index("The result.") < described.index("ifguide</") < 400
    text = (finished / RESULTS / "results_table.txt").read_text(encoding="utf-8")
    assert text.startswith("`ifguide` takes ")


@needs_browser
def test_the_report_can_request_nothing(finished, tmp_path):
    report = (finished / RESULTS / "report.html").read_text(encoding="utf-8")
    ask = """(window.asked ??= (fetch("http://host.invalid/x").catch(() => 0),
      new Image().src = "http://host.invalid/y"))"""
    look = "return document.querySelector('meta[http-equiv]').content;"
    ready = f"document.querySelector('nav') && {ask} && failures.length > 1"
    reported, _, net_log = in_browser(report, look, tmp_path, ready)
    assert "default-src 'none'" in reported["outcome"]
    assert sorted(reported["failures"]) == [
        "policy: connect-src http://host.invalid/x",
        "policy: img-src http://host.invalid/y",
    ]
    assert "host.invalid" not in net_log


def test_run_config_records_what_was_run(finished):
    record = yaml.safe_load((finished / RESULTS / "run_config.yaml").read_text(encoding="utf-8"))
    assert record["config"]["training"]["weight_decay"] == 0.0004
    assert record["seed"] == 1
    assert {"torch", "transformers", "detoxify", "snakemake"} <= set(record["packages"])
    assert record["hardware"]["cores"] == os.cpu_count() and record["hardware"]["memory_gib"] > 0
    assert record["cores"] == 2 and record["threads"]["OMP_NUM_THREADS"] == "1"
    assert TINY in record["command"]
    assert datetime.fromisoformat(record["started"]).utcoffset() == timedelta()
    # A copy that is no repository must not claim the commit of one around it.
    assert record["commit"] is None and record["uncommitted_changes"] is None
    # The planted corpus is generated, from the config alone.
    assert record["data_sha256"] == {} and record["data_not_hashed"] == {}


def test_every_job_has_a_log_and_a_benchmark(finished):
    logs = finished / "logs/tiny"
    names = {path.relative_to(logs).with_suffix("") for path in logs.rglob("*.log")}
    times = logs / "benchmarks"
    assert names == {path.relative_to(times).with_suffix("") for path in times.rglob("*.tsv")}
    assert len(names) == 95


@pytest.mark.slow
def test_the_small_config_runs_to_the_report(finished_small):
    """What it does otherwise than the tiny one: the test of kills runs that one from nothing."""
    summary = pd.read_csv(finished_small / RESULTS / "summary.csv")
    assert set(summary["method"]) >= {"none", "ifguide", "rad"}
    assert (finished_small / RESULTS / "report.html").stat().st_size > 100_000
    again = run_snakemake(finished_small, "--configfile", "small.yaml", "--cores", "2", "--dry-run")
    assert rules_to_run(again.stdout) == set()


def test_results_do_not_depend_on_the_number_of_shards(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    overlay = "{corpus: {shards: 1}, influence: {factors: {shards: 3}}}"
    (clone / "one.yaml").write_text(overlay, encoding="utf-8")
    wanted = SELECTION / "selection.json"
    for command in job_commands(clone, wanted, "--configfile", TINY, "one.yaml"):
        assert run_command(clone, command) is None
    for folder in (PROXY / "differential/scores/loss", SELECTION / "mask"):
        # The second shard of the run before is still there.
        together = np.load(clone / folder / "shard-00000.npy")
        np.testing.assert_array_equal(together, np.concatenate(shards(finished / folder)))


def test_the_other_objectives_train(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    models = RESULTS / "models/target"
    wanted = [models / "ascent/0/training.json", models / "repair/0/training.json"]
    for command in job_commands(clone, *wanted, "--configfile", TINY):
        assert run_command(clone, command) is None
    ascent, repair = (read_json(clone / path) for path in wanted)
    assert ascent["steps"] == 10
    assert ascent["mask_sha256"] == read_json(clone / SELECTION / "selection.json")["mask_sha256"]
    wide = read_json(clone / PROXY / "differential/wide/selection.json")
    assert repair["mask_sha256"] == wide["mask_sha256"]
    # One epoch more of the uncensored model begins where that one ended.
    first = pd.read_csv(clone / models / "repair/0/losses.csv")["unselected_loss"].iloc[0]
    last = pd.read_csv(clone / models / "none/0/losses.csv")["unselected_loss"].iloc[-1]
    start = pd.read_csv(clone / models / "none/0/losses.csv")["unselected_loss"].iloc[0]
    assert abs(first - last) < 0.5 * (start - last)


LONGER = {
    "methods": {"ifguide": {"training": {"epochs": 6, "checkpoint_steps": 20}}},
}
MODEL = RESULTS / "models/target/ifguide/0"


@pytest.fixture(scope="module")
def uninterrupted(finished, tmp_path_factory) -> Path:
    clone = copy_run(finished, tmp_path_factory.mktemp("uninterrupted") / "clone")
    (command,) = job_commands(clone, *longer_training(clone))
    assert run_command(clone, command) is None
    return clone


def longer_training(clone: Path) -> list[str | Path]:
    (clone / "longer.yaml").write_text(yaml.safe_dump(LONGER), encoding="utf-8")
    return [MODEL / "training.json", "--configfile", TINY, "longer.yaml"]


def training_command(clone: Path) -> list[str]:
    return snakemake_command(*longer_training(clone), "--cores", "2")


def start_and_wait_for_checkpoint(clone: Path) -> subprocess.Popen:
    """Start the training in a process group of its own, as a terminal does."""
    running = subprocess.Popen(
        training_command(clone),
        cwd=clone,
        env=environment(),
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    checkpoints = (clone / MODEL).with_name(f".{MODEL.name}.checkpoints")
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
        assert running.poll() is None, "the training ended without a checkpoint"
        time.sleep(0.01)
    return running


def hear_interrupts() -> None:
    """A test runner in the background ignores Ctrl-C, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def assert_resumed(clone: Path, uninterrupted: Path) -> None:
    steps = pd.read_csv(clone / MODEL / "losses.csv")["step"]
    assert steps.is_monotonic_increasing and steps.is_unique
    assert weights_of(clone / MODEL) == weights_of(uninterrupted / MODEL)
    assert not list(clone.glob(f"{MODEL.parent}/.*checkpoints"))


def test_an_interrupted_run_resumes_with_the_same_command(finished, uninterrupted, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    running = start_and_wait_for_checkpoint(clone)
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(timeout=60) != 0
    assert not (clone / MODEL / "training.json").exists()
    again = subprocess.run(training_command(clone), cwd=clone, env=environment(), check=False)
    assert again.returncode == 0
    assert_resumed(clone, uninterrupted)


def test_a_killed_training_is_retried_from_its_checkpoint(finished, uninterrupted, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    running = start_and_wait_for_checkpoint(clone)
    os.kill(training_process(running.pid), signal.SIGKILL)
    assert running.wait(timeout=300) == 0
    assert_resumed(clone, uninterrupted)


def training_process(session: int) -> int:
    """The process of the session that trains, not the shell that started it."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "-s", str(session)], capture_output=True, text=True, check=True
    )
    found = [
        int(line.split()[0])
        for line in listed.stdout.splitlines()
        if re.match(r"\s*\d+ \S*python\S* \S*scripts/make_model\.py ", line)
    ]
    assert len(found) == 1, listed.stdout
    return found[0]


def test_paths_with_spaces(tmp_path):
    repository = copy_repository(tmp_path / "the repository")
    elsewhere = tmp_path / "some where else"
    elsewhere.mkdir()
    arguments = ["--snakefile", repository / "workflow/Snakefile"]
    arguments += ["--configfile", repository / TINY, "--directory", elsewhere, "--cores", "1"]
    planted = run_snakemake(tmp_path, RESULTS / "queries/toxic.jsonl", *arguments)
    assert planted.returncode == 0, planted.stdout
    assert len(read_jsonl(elsewhere / RESULTS / "queries/toxic.jsonl")) == 24
    assert (elsewhere / "logs/tiny/read_queries/toxic.log").exists()
    left = rules_to_run(run_snakemake(tmp_path, *arguments, "--dry-run").stdout)
    assert "plant" not in left
    assert {"read_queries", "make_model", "build_report"} <= left


def test_lint_and_strict_evaluation_pass(finished):
    linted = run_snakemake(finished, "--lint")
    assert linted.returncode == 0, linted.stdout
    strict = ["functions", "cyclic-graph", "periodic-wildcards"]
    arguments = ["--cores", "1", "--dry-run", "--strict-dag-evaluation", *strict]
    ran = run_snakemake(finished, *arguments)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize(
    "target",
    ["fetch", "train", "factors", "scores", "select", "detoxify", "evaluate", "study", "report"],
)
def test_every_stage_is_a_target(finished, target):
    ran = run_snakemake(finished, target, "--configfile", TINY, "--cores", "1", "--dry-run")
    # Whatever else the config defines may still be to do; the stage itself is known and whole.
    assert ran.returncode == 0, ran.stdout


def test_it_is_a_module_of_another_workflow(finished, tmp_path):
    (tmp_path / "Snakefile").write_text(
        "configfile: 'config.yaml'\n"
        "module ifguide:\n"
        f"    snakefile: {json.dumps(str(finished / 'workflow/Snakefile'))}\n"
        "    config: config\n"
        "use rule * from ifguide as ifguide_*\n"
        "rule all:\n"
        "    default_target: True\n"
        "    input: rules.ifguide_all.input\n",
        encoding="utf-8",
    )
    (tmp_path / "config.yaml").write_text((finished / TINY).read_text("utf-8"), encoding="utf-8")
    ran = run_snakemake(tmp_path, "--cores", "1", "--dry-run")
    assert ran.returncode == 0, ran.stdout
    assert "ifguide_make_model" in rules_to_run(ran.stdout)
    made = RESULTS / "queries/toxic.jsonl"
    ran = run_snakemake(tmp_path, made, "--cores", "1")
    assert ran.returncode == 0, ran.stdout
    with open(tmp_path / "config.yaml", "a", encoding="utf-8") as config:
        config.write("track_code: false\n")
    ran = run_snakemake(tmp_path, made, "--cores", "1", "--dry-run")
    assert rules_to_run(ran.stdout) == set(), ran.stdout
    assert (tmp_path / made).read_bytes() == (finished / made).read_bytes()
