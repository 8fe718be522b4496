"""What a config names is opened before the first job: a line for every fault, with its key."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
import yaml
from transformers import GPT2Config, GPT2LMHeadModel, RobertaForSequenceClassification

from conftest import copy_repository, run_snakemake
from ifguide.data.corpus import train_tokenizer
from ifguide.data.repositories import Repository, record_of
from ifguide.evaluation.classifiers import save_detoxify, train_classifier_tokenizer
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.experiment import Config
from ifguide.workflow.parts import open_experiment
from ifguide.workflow.preflight import Preflight
from own_texts import RECORDS, SMALL, own_config, write_lines, write_texts
from small_models import classifier_config, small_model

MPT = {"model_type": "mpt", "d_model": 16, "n_heads": 2, "n_layers": 1}
OPT = {
    "model_type": "opt",
    "hidden_size": 16,
    "word_embed_proj_dim": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "ffn_dim": 32,
}


@pytest.fixture
def texts(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_texts(tmp_path)


def findings(config: dict) -> list[str]:
    return Preflight(open_experiment(with_defaults(Config, config))).run()


def test_a_sound_config_has_no_findings(texts):
    assert findings(own_config()) == []


def scored(text: str, toxicity: float, continuation: str = " and so on") -> dict:
    return {
        "prompt": {"text": text, "toxicity": toxicity},
        "continuation": {"text": continuation, "toxicity": toxicity},
    }


def posts_with(**fields) -> list[dict]:
    return [{"text": f"Post number {number} is here.", **fields} for number in range(50)]


def given_model(**changes) -> None:
    """A directory of a model that fits the corpus."""
    model = small_model("gpt_neox").float()
    with torch.no_grad():
        for name, value in changes.items():
            model.get_parameter(name.replace("__", ".")).view(-1)[0] = value
    model.save_pretrained("given")


SCORED_PROMPT = {"prompt": {"text": "b", "toxicity": 0.7}}


def detoxify_checkpoint(without: str = "") -> None:
    """A Detoxify model as it is trained here, less one of its tensors."""
    tokenizer = train_classifier_tokenizer(["a b"] * 4, 300, 32)
    described = classifier_config(tokenizer, max_position_embeddings=66, num_labels=1)
    save_detoxify(RobertaForSequenceClassification(described), tokenizer, Path("judge"))
    content = torch.load("judge/model.ckpt", weights_only=True)
    content["state_dict"].pop(without, None)
    torch.save(content, "judge/model.ckpt")
    Path("judge/SHA256SUMS").unlink()


def vocabulary_and_merges() -> None:
    """A tokenizer in the two files that GPT-2's was published in."""
    train_tokenizer(["the cat sees"] * 4, 300).save_pretrained("whole")
    model = json.loads(Path("whole/tokenizer.json").read_text("utf-8"))["model"]
    Path("tok").mkdir()
    Path("tok/vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "".join(f"{' '.join(merge)}\n" for merge in model["merges"])
    Path("tok/merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    described = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}
    Path("tok/tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")


def other(**model) -> dict:
    return {"models": {"other": {"tokenizer": "bpe", **model}}}


def architecture(model_type: str = "gpt_neox", **settings) -> dict:
    return other(architecture={"model_type": model_type, **{**SMALL, **settings}})


def query(**entry) -> dict:
    return {"queries": {"toxic": {**RECORDS, **entry}}}


def benchmark(**entry) -> dict:
    return {"benchmarks": {"more": {"kind": "prompts", **entry}}}


def labelled(path: str, **train) -> dict:
    source = {"format": "labelled", "files": path}
    return {"rewards": {"mine": {"train": {"sources": [source], **train}}}}


def compared(step: dict, **own) -> dict:
    """A method that is compared, of a model of some family."""
    return {
        **other(architecture=own or {"model_type": "gpt_neox", **SMALL}),
        "texts": {
            "labelled": {"sources": [{"format": "labelled", "files": "texts/labelled.jsonl"}]}
        },
        "methods": {"tried": {"start_from": "none", **step}},
        "evaluation": {"models": ["other"], "methods": ["none", "tried"]},
    }


def source(**entry) -> dict:
    named = {"name": "posts", "files": "texts/posts.jsonl", "spans": "spans"}
    return {"corpus": {"sources": [{**named, **entry}]}}


NOT_A_MODEL = "given: cannot be loaded as a model ("

# Each row: what is written first, what the config has beside it, and the line that is expected.
FAULTS = {
    "a block longer than the corpus": (
        None,
        {"corpus": {"block_size": 100_000}},
        "corpus.block_size: 100000 is longer than the whole corpus, which has at most ",
    ),
    "a block beyond all memory": (
        None,
        {"corpus": {"block_size": 10**9}},
        "corpus.block_size: 1000000000 is longer than the whole corpus, which has at most ",
    ),
    "spans that are all null": (
        lambda: write_lines(Path("texts/posts.jsonl"), posts_with(spans=None)),
        {},
        "corpus.sources: the `spans` mark nothing in any document, so that no token is known",
    ),
    "spans that are all empty": (
        lambda: write_lines(Path("texts/posts.jsonl"), posts_with(spans=[])),
        {},
        "corpus.sources: the `spans` mark nothing in any document, so that no token is known",
    ),
    "records without the field": (
        None,
        source(text="body"),
        "corpus.sources.posts.files: texts/posts.jsonl, line 1: no field 'body'; there are: text",
    ),
    "an empty corpus file": (
        lambda: Path("texts/posts.jsonl").write_text(""),
        {},
        "corpus.sources.posts.files: texts/posts.jsonl: the file is empty; fetch it again or",
    ),
    "queries without the score": (
        None,
        query(files="texts/posts.jsonl"),
        "queries.toxic.files: texts/posts.jsonl, line 1: no field 'prompt'; there are: text",
    ),
    "queries that the filters leave none of": (
        None,
        query(continuation_toxicity=[0.95, 1.0]),
        "queries.toxic.files: texts/prompts.jsonl: no prompt left of 80 records (",
    ),
    "queries of a format without continuations": (
        lambda: Path("texts/lines.txt").write_text("one prompt\nanother\n"),
        {"queries": {"more": {"format": "text", "files": "texts/lines.txt"}}},
        "queries.more.format: text has no continuations, and the query direction is their gradient",
    ),
    "queries whose continuations are all empty": (
        lambda: write_lines(Path("texts/none.jsonl"), [scored(f"{n}", 0.7, "") for n in range(9)]),
        {"queries": {"more": {"format": "realtoxicityprompts", "files": "texts/none.jsonl"}}},
        "queries.more.files: all 9 continuations are empty, and the query is their gradient",
    ),
    "toxic and safe with the same records": (
        None,
        {"influence": {"directions": {"differential": {"safe": "toxic"}}}},
        "influence.directions.differential.safe: toxic holds the same records as toxic, so that",
    ),
    "layers that match nothing": (
        None,
        {"influence": {"directions": {"differential": {"layers": "attn"}}}},
        "influence.directions.differential.layers: 'attn' is in no name of a tracked layer of "
        "models.proxy; names are such as gpt_neox.layers.0.",
    ),
    "labelled texts of one kind": (
        lambda: write_lines(Path("texts/one.jsonl"), posts_with(toxic=True)),
        labelled("texts/one.jsonl"),
        "rewards.mine.train.sources: all 50 texts are toxic, so that there is nothing to tell",
    ),
    "one labelled text": (
        lambda: write_lines(Path("texts/one.jsonl"), posts_with(toxic=True)[:1]),
        labelled("texts/one.jsonl"),
        "rewards.mine.train.sources: all 1 texts are toxic, so that there is nothing to tell",
    ),
    "hardly a labelled text held out": (
        None,
        labelled("texts/labelled.jsonl", held_out=1e-9),
        "rewards.mine.train.held_out: 1e-09 of 120 texts leaves none to measure on; give more",
    ),
    "hardly a labelled text to train on": (
        None,
        labelled("texts/labelled.jsonl", held_out=0.999999),
        "rewards.mine.train.held_out: 0.999999 of 120 texts leaves no two kinds to train on; give",
    ),
    "a benchmark of another format": (
        None,
        benchmark(format="toxigen", files="texts/*.jsonl"),
        "benchmarks.more.files: texts/labelled.jsonl, line 1: no field 'toxicity_human'",
    ),
    "passages of one word": (
        lambda: Path("texts/words.txt").write_text("one\ntwo\n"),
        {"benchmarks": {"lambada": {"kind": "lambada", "files": "texts/words.txt"}}},
        "benchmarks.lambada.files: texts/words.txt: no passage of at least two words",
    ),
    "a word list without a word": (
        lambda: Path("texts/words.txt").write_text("\n\n"),
        {"methods": {"words": {"filter": {"words": "texts/words.txt"}}}},
        "methods.words.filter.words: texts/words.txt: no word; write one word or phrase a line",
    ),
    "pairs of another format": (
        None,
        {"methods": {"dpo": {"start_from": "none", "dpo": {"pairs": "texts/posts.jsonl"}}}},
        "methods.dpo.dpo.pairs: texts/posts.jsonl, line 1: no field 'toxic'",
    ),
    "a vocabulary that is too small": (
        None,
        {"tokenizers": {"small": {"vocabulary_size": 200}}},
        "tokenizers.small.vocabulary_size: 200 is too small; a byte-level tokenizer needs at least",
    ),
    "a directory without a tokenizer": (
        None,
        {"tokenizers": {"none": {"path": "texts"}}},
        "tokenizers.none.path: ",
    ),
    "a cut tokenizer": (
        lambda: (
            train_tokenizer(["a b"], 300).save_pretrained("tok"),
            Path("tok/tokenizer.json").write_bytes(Path("tok/tokenizer.json").read_bytes()[:99]),
        ),
        {"tokenizers": {"cut": {"path": "tok"}}},
        "tokenizers.cut.path: ",
    ),
    "an architecture that is no causal decoder": (
        None,
        architecture("bert"),
        "models.other.architecture: bert sees the tokens that follow; give a causal decoder",
    ),
    "heads that do not divide the width": (
        None,
        architecture(num_attention_heads=3),
        "models.other.architecture: gpt_neox cannot have these settings (The hidden size is not",
    ),
    "a number in quotation marks": (
        None,
        architecture(hidden_size="64"),
        "models.other.architecture: gpt_neox cannot have these settings (Field 'hidden_size' "
        "expected int, got str",
    ),
    "a whole number with a point": (
        None,
        architecture(hidden_size=64.0),
        "models.other.architecture: gpt_neox cannot have these settings (Field 'hidden_size' "
        "expected int, got float",
    ),
    "a directory without weights": (
        lambda: (given_model(), Path("given/model.safetensors").unlink()),
        other(path="given"),
        f"models.other.path: {NOT_A_MODEL}",
    ),
    "weights that were cut": (
        lambda: (given_model(), Path("given/model.safetensors").write_bytes(b"cut")),
        other(path="given"),
        f"models.other.path: {NOT_A_MODEL}",
    ),
    "a model of another configuration": (
        lambda: (
            given_model(),
            GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50)).config
            .save_pretrained("given"),
        ),
        other(path="given"),
        "models.other.path: given: lacks tensors of GPT2LMHeadModel, which would be drawn at ",
    ),
    "weights that are not finite": (
        lambda: given_model(gpt_neox__embed_in__weight=float("nan")),
        other(path="given"),
        "models.other.path: given: weights that are not finite: gpt_neox.embed_in.weight; the "
        "training that made them diverged",
    ),
    "a start that is no model": (
        lambda: (given_model(), Path("given/model.safetensors").write_bytes(b"cut")),
        {"methods": {"tuned": {"start_from": {"path": "given"}}}},
        f"methods.tuned.start_from.path: {NOT_A_MODEL}",
    ),
    "biases of a family that has none": (
        None,
        compared({"uddia": {"texts": "labelled"}}, model_type="llama", **SMALL),
        "methods.tried.uddia: a llama model has no biases in its blocks, so that none can be tuned",
    ),
    "more biases than blocks": (
        None,
        compared({"uddia": {"texts": "labelled", "blocks": 9}}),
        "methods.tried.uddia: 9 blocks are to be tuned, but the model has 1",
    ),
    "a block that is not there": (
        None,
        compared({"sae_gating": {"texts": "labelled", "block": 2}}),
        "methods.tried.sae_gating: 2, but GPTNeoXForCausalLM has 1 blocks",
    ),
    "a folded block that is not there": (
        None,
        compared({"sae_steering": {"texts": "labelled", "block": 2}}),
        "methods.tried.sae_steering: 2, but GPTNeoXForCausalLM has 1 blocks",
    ),
    "layers that no name fits": (
        None,
        compared({"aura": {"texts": "labelled", "layers": "no_such"}}),
        "methods.tried.aura: 'no_such' is in no name of a linear layer; one of them is ",
    ),
    "queries, keys and values of another name": (
        None,
        compared({"antidote": {"texts": "labelled", "targets": "qkv"}}, **MPT),
        "methods.tried.antidote: MptForCausalLM: no layer is named",
    ),
    "gates of another name": (
        None,
        compared({"model_surgery": {"texts": "labelled"}}, **OPT),
        "methods.tried.model_surgery: OPTForCausalLM: no layer is named gate_proj",
    ),
    "a judge that is no Detoxify model": (
        lambda: Path("judge.ckpt").write_bytes(b"no checkpoint"),
        {"classifiers": {"given": {"checkpoint": "judge.ckpt"}}},
        "classifiers.given.checkpoint: judge.ckpt: damaged, or a pickle that holds more than",
    ),
    "a judge that is a language model": (
        lambda: (given_model(), train_tokenizer(["a b"], 300).save_pretrained("given")),
        {"classifiers": {"given": {"path": "given", "toxic_label": 1}}},
        "classifiers.given.path: given: lacks tensors of GPTNeoXForSequenceClassification",
    ),
    "a judge without a tokenizer": (
        given_model,
        {"classifiers": {"given": {"path": "given", "toxic_label": 1}}},
        "classifiers.given.path: given: holds no tokenizer; give a directory with a tokenizer.json",
    ),
    "a Detoxify checkpoint without tensors": (
        lambda: detoxify_checkpoint("classifier.dense.weight"),
        {"classifiers": {"given": {"checkpoint": "judge/model.ckpt"}}},
        "classifiers.given.checkpoint: judge/model.ckpt: lacks tensors of RobertaForSequence"
        "Classification, which would be drawn at random: classifier.dense.weight; give a whole",
    ),
    "a tokenizer's path that is a file": (
        None,
        {"tokenizers": {"none": {"path": "texts/posts.jsonl"}}},
        "tokenizers.none.path: texts/posts.jsonl is not a directory",
    ),
    "two files of a tokenizer, one of which is another": (
        lambda: (vocabulary_and_merges(), Path("tok/vocab.json").write_text("[1]")),
        {"tokenizers": {"two": {"path": "tok"}}},
        "tokenizers.two.path: cannot be opened (",
    ),
    "all scores null": (
        lambda: write_lines(Path("texts/null.jsonl"), [scored(f"{n}", None) for n in range(9)]),
        {"benchmarks": {"more": {"kind": "prompts", **RECORDS, "files": "texts/null.jsonl"}}},
        "benchmarks.more.files: texts/null.jsonl: no prompt left of 9 records (9 skipped null "
        "toxicity); the scores that they need are null: give records with a toxicity",
    ),
    "queries of which some have no continuation": (
        lambda: write_lines(Path("texts/some.jsonl"), [scored("a", 0.7), SCORED_PROMPT]),
        {"queries": {"more": {**RECORDS, "files": "texts/some.jsonl"}}},
        "queries.more.files: 1 of 2 records have no continuation, and the query is their gradient;",
    ),
    "no layer": (
        None,
        architecture(num_hidden_layers=0),
        "models.other.architecture: gpt_neox without a layer; give it one at least",
    ),
    "new tokens that leave no room": (
        None,
        {"generation": {"max_new_tokens": 64}},
        "generation.max_new_tokens: 64 new tokens leave no room for a prompt in the 32 positions",
    ),
    "a folder where a file has to be": (
        None,
        source(files="texts"),
        "corpus.sources.posts.files: texts: not a file; name files or a pattern such as texts/*",
    ),
    "labels that are all null": (
        lambda: write_lines(Path("texts/null.jsonl"), posts_with(toxic=None)),
        labelled("texts/null.jsonl"),
        "rewards.mine.train.sources: texts/null.jsonl: no labelled text left (50 null labels); che",
    ),
    "last words longer than a block": (
        lambda: Path("texts/words.txt").write_text(f"the {'x' * 31}\n"),
        {"benchmarks": {"lambada": {"kind": "lambada", "files": "texts/words.txt"}}},
        "benchmarks.lambada.files: texts/words.txt: the last words of all 1 passages are too long",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_with_its_key(texts, fault):
    write, changes, expected = FAULTS[fault]
    if write:
        write()
    found = findings(own_config(**changes))
    assert len(found) == 1 and found[0].startswith(expected), found
    assert "\n" not in found[0] and "Traceback" not in found[0]


def test_a_tokenizer_in_two_files_is_one(texts):
    vocabulary_and_merges()
    config = own_config(tokenizers={"two": {"path": "tok"}})
    assert findings(config) == []
    sources = open_experiment(with_defaults(Config, config)).sources
    names = ["merges.txt", "tokenizer_config.json", "vocab.json"]
    assert sources.tokenizer_input("two") == [f"tok/{name}" for name in names]


def test_a_whole_detoxify_checkpoint_is_sound(texts):
    detoxify_checkpoint()
    assert findings(own_config(classifiers={"given": {"checkpoint": "judge/model.ckpt"}})) == []


# Files larger than what is read whole; the last of several is another.
BEGINNINGS = {
    "a corpus": ("more.jsonl", {"text": 1}, lambda f: source(files=f)),
    "a corpus, every second record": ("posts.jsonl", {"txt": "a"}, lambda f: source(files=f)),
    "queries": ("more.jsonl", {"text": "a"}, lambda f: query(files=f)),
    "prompts": ("more.jsonl", {"text": "a"}, lambda f: benchmark(**{**RECORDS, "files": f})),
    "labelled texts": ("more.jsonl", {"text": "a", "toxic": 7}, lambda f: labelled(f)),
    "passages": (
        "more.jsonl",
        {"words": "a"},
        lambda f: {"benchmarks": {"lambada": {"kind": "lambada", "files": f}}},
    ),
    "pairs": (
        "more.jsonl",
        {"chosen": "a"},
        lambda f: {
            "methods": {"dpo": {"start_from": "none", "dpo": {"pairs": f, "format": "preference"}}}
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_of_large_data_the_beginning_is_read(texts, monkeypatch, kind):
    monkeypatch.setattr("ifguide.workflow.preflight.LARGEST_DATA", 0)
    name, record, changes = BEGINNINGS[kind]
    Path("large").mkdir()
    write_lines(Path("large") / name, [record] * 1000)
    config = own_config(**changes(f"large/{name}"))
    found = findings(config)
    assert len(found) == 1 and f"large/{name}, line 1: " in found[0], found


def test_of_large_data_no_more_than_the_beginning_is_read(texts, monkeypatch):
    monkeypatch.setattr("ifguide.workflow.preflight.LARGEST_DATA", 0)
    lines = Path("texts/posts.jsonl").read_text("utf-8").splitlines()
    bad = lines + ["{" for _ in range(300)]
    Path("texts/posts.jsonl").write_text("\n".join(bad), encoding="utf-8")
    assert findings(own_config()) == []


def fetched(kind: str, *files: str) -> None:
    """Have a repository of the hub be here, as it lies once its rule has fetched it."""
    repository = Repository(kind, "some/repository", REVISION, files)
    folder = Path("data/hub", f"{kind}s", "some--repository", REVISION)
    found = [path for pattern in files for path in sorted(folder.glob(pattern))]
    record = record_of(repository, folder)
    record.write_text(json.dumps({str(p.relative_to(folder)): "0" for p in found}), "utf-8")


REVISION = "0" * 40
ON_THE_HUB = {"hub": "some/repository", "revision": REVISION}


def test_a_repository_that_was_fetched_is_opened(texts):
    folder = Path("data/hub/datasets/some--repository", REVISION)
    folder.mkdir(parents=True)
    write_lines(folder / "a.jsonl", [{"text": "no prompt"}])
    config = own_config(**query(**ON_THE_HUB, files="*.jsonl"))
    assert findings(config) == []  # it may be on its way
    fetched("dataset", "*.jsonl")
    (found,) = findings(config)
    assert found.startswith(f"queries.toxic.files: {folder}/a.jsonl, line 1: no field 'prompt'")


def test_a_tokenizer_that_is_on_its_way_is_passed_over(texts):
    folder = Path("data/hub/models/some--repository", REVISION)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    config = own_config(tokenizers={"far": ON_THE_HUB})
    assert findings(config) == []
    fetched("model", "*.json", "*.txt", "*.model")
    (found,) = findings(config)
    assert found.startswith(f"tokenizers.far.hub: {folder}: holds no tokenizer; give a directory")


def test_what_the_name_of_a_file_to_come_tells(texts):
    config = own_config(**query(**ON_THE_HUB, files="*.txt"))
    assert findings(config) == [
        "queries.toxic.files: *.txt: plain text, which has no fields; give a file of records"
    ]


def test_what_is_not_there_yet_is_passed_over(texts):
    """Planted files, downloads and repositories of the hub come with their own rules."""
    download = {"url": "https://example.org/a", "sha256": "0" * 64, "path": "a.jsonl"}
    revision = "0" * 40
    config = own_config(
        downloads={"a": download},
        queries={"more": {**RECORDS, "files": "{data_dir}/a.jsonl"}},
        classifiers={"list": {"words": "{planted}/words.txt"}},
        tokenizers={"far": {"hub": "some/model", "revision": revision}},
        models={"far": {"tokenizer": "bpe", "architecture": {"hub": "a/b", "revision": revision}}},
    )
    config["corpus"]["sources"].append({"name": "more", "files": "{planted}/documents.jsonl"})
    assert findings(config) == []


def test_a_corpus_of_a_thousand_files_is_tried_in_seconds(texts, monkeypatch):
    monkeypatch.setattr("ifguide.workflow.preflight.LARGEST_DATA", 2**16)
    Path("many").mkdir()
    lines = Path("texts/posts.jsonl").read_bytes()
    for number in range(1000):
        Path(f"many/{number:05d}.jsonl").write_bytes(lines)
    Path("many/00999.jsonl").write_text('{"text": 1, "spans": []}\n')
    started = time.monotonic()
    (found,) = findings(own_config(**source(files="many/*.jsonl")))
    assert time.monotonic() - started < 20
    assert found.startswith(
        "corpus.sources.posts.files: many/00999.jsonl, line 1: field 'text' hol"
    )


# --- as a user meets it ---------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path) -> Path:
    copy_repository(tmp_path / "clone")
    write_texts(tmp_path / "clone")
    return tmp_path / "clone"


def written(clone: Path, **changes) -> str:
    (clone / "mine.yaml").write_text(yaml.safe_dump(own_config(**changes)), encoding="utf-8")
    return "mine.yaml"


def test_a_run_begins_with_it_and_tells_all_at_once(clone):
    """Not one job runs, and neither does one after the faults are mended in vain."""
    config = written(clone, corpus={"block_size": 10**6}, **architecture("bert"))
    ran = run_snakemake(clone, "read_documents", "--configfile", config, "--cores", "1")
    told = [line for line in ran.stdout.splitlines() if line.startswith("error: ")]
    assert ran.returncode == 1 and len(told) == 2, ran.stdout
    assert told[0].startswith("error: config: corpus.block_size: 1000000 is longer than")
    assert told[1].startswith("error: config: models.other.architecture: bert sees the tokens")
    assert "Traceback" not in ran.stdout
    assert not (clone / "results/mine/corpus").exists()
    alone = run_snakemake(clone, "preflight", "--configfile", config, "--cores", "1")
    assert alone.returncode == 1 and all(line in alone.stdout for line in told)


def test_what_was_found_sound_is_not_opened_again(clone):
    config = written(clone)
    printed = []
    for touched in (False, False, True):
        if touched:
            os.utime(clone / "texts/prompts.jsonl", ns=(1, 1))
        arguments = ["read_documents", "--configfile", config, "--cores", "1"]
        ran = run_snakemake(clone, *arguments, "--forcerun", "read_documents")
        assert ran.returncode == 0, ran.stdout
        printed.append("things opened in" in ran.stdout)
    assert printed == [True, False, True]
    record = yaml.safe_load((clone / "results/mine/run_config.yaml").read_text("utf-8"))
    assert json.dumps(record["config"]["models"])
