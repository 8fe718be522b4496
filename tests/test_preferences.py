"""Preference pairs, and DPO on them: its first loss, its margin, and what it is resumed from."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from torch.nn.functional import logsigmoid

from conftest import REPOSITORY, environment, error_line
from ifguide.data.benchmark_formats import PromptRecord
from ifguide.data.corpus import train_tokenizer
from ifguide.data.preferences import PreferencePair, read_pairs, require_pairs_disjoint
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import read_json, write_jsonl
from ifguide.methods.dpo import train_on_pairs
from ifguide.models.loading import build_model, load_model, weights_sha256
from ifguide.models.pair_texts import tokenize_pairs
from ifguide.models.training_progress import LogLine
from own_texts import SMALL

SEED = 1
PAIRS = [
    PreferencePair("", f"the {name} is a {good}", f"the {name} is a {bad}")
    for name in ("cook", "guide", "tailor", "miller")
    for good, bad in (("friend", "fool"), ("poet", "creep"))
]
SETTINGS = {
    "epochs": 6,
    "batch_size": 4,
    "accumulation": 1,
    "learning_rate": 0.01,
    "schedule": "constant",
    "warmup": 0.0,
    "weight_decay": 0.0,
    "betas": [0.9, 0.95],
    "epsilon": 1e-8,
    "clip": 1.0,
    "precision": "float32",
    "gradient_checkpointing": False,
    "compile": False,
    "fsdp": False,
    "explosion_factor": None,
    "peak_flops": None,
    "log_steps": 1,
    "checkpoint_steps": 5,
}
BETA = 0.3


def refused(*arguments) -> str:
    with pytest.raises(InputError) as error:
        read_pairs(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def write_pairs(path, rows, header=("toxic", "neutral1", "neutral2")):
    lines = ["\t".join(row) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_pairs_of_paradetox_prefer_every_rewrite(tmp_path):
    rows = [["t", "n", "m"], ["t", "n", ""], ["u", "u", ""], ["", "v", ""]]
    path = write_pairs(tmp_path / "pairs.tsv", rows)
    pairs, counts = read_pairs({"format": "paradetox"}, [path], SEED)
    assert set(pairs) == {PreferencePair("", "n", "t"), PreferencePair("", "m", "t")}
    assert counts == {"read": 5, "skipped": 2, "kept": 2}
    part = {"format": "paradetox", "part": [0.0, 1.0], "limit": 1}
    assert read_pairs(part, [path], SEED)[0] == pairs[:1]


def test_pairs_with_prompts(tmp_path):
    path = tmp_path / "pairs.jsonl"
    record = {"prompt": "p", "chosen": "c", "rejected": "r"}
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    pairs, _ = read_pairs({"format": "preference"}, [path], SEED)
    assert pairs == [PreferencePair("p", "c", "r")]


def test_bad_pairs_are_refused_with_file_and_line(tmp_path):
    path = write_pairs(tmp_path / "pairs.tsv", [["t", "n"]], ("toxic", "rewrite"))
    expected = f"{path}, line 2: no field 'neutral1'; there are: toxic, rewrite"
    assert refused({"format": "paradetox"}, [path], SEED) == expected
    write_pairs(path, [["t", "n", ""], ["t", "n"], ["t", "n"]])
    assert refused({"format": "paradetox"}, [path], SEED).startswith(f"{path}, line 3: 2 fields")
    write_pairs(path, [["t", "t", ""]])
    assert "no pair left of 1 read, 1 of them" in refused({"format": "paradetox"}, [path], SEED)
    lines = tmp_path / "pairs.jsonl"
    lines.write_text('{"chosen": 3, "rejected": "r"}\n')
    expected = f"{lines}, line 1: chosen holds int, not text; fix it"
    assert refused({"format": "preference"}, [lines], SEED) == expected
    lines.write_text('{"chosen": "c"\n')
    assert refused({"format": "preference"}, [lines], SEED).startswith(f"{lines}, line 1: ")


@pytest.mark.parametrize(
    "poison", ['{"chosen": 3, "rejected": "r"}', '{"chosen": "c"}', "{", "[" * 100_000, "3"]
)
def test_one_malformed_pair_is_skipped_and_named(tmp_path, poison):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"chosen": "c", "rejected": "r"}\n' + poison + "\n")
    pairs, counts = read_pairs({"format": "preference"}, [path], SEED)
    assert pairs == [PreferencePair("", "c", "r")]
    (named,) = counts.pop("first_malformed")
    assert named.startswith(f"{path}, line 2: ")
    assert counts == {"read": 2, "skipped": 1, "skipped_malformed": 1, "kept": 1}


@pytest.mark.parametrize("prompt", ["c", "r ", "p", "p c", "p r"])
def test_pairs_that_hold_a_test_prompt_are_refused(prompt):
    record = PromptRecord(prompt, None, "toxic", None, None, None)
    other = PromptRecord("something else", None, "toxic", None, None, None)
    pairs = [PreferencePair("p", " c", " r"), PreferencePair("", "d", "s")]
    require_pairs_disjoint(pairs, [other], "methods.dpo", "toxigen")
    with pytest.raises(InputError, match=r"^the pairs of methods.dpo share 1 texts with "):
        require_pairs_disjoint(pairs, [other, record], "methods.dpo", "toxigen")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([pair.chosen + pair.rejected for pair in PAIRS], 290)


def model(tokenizer):
    architecture = {"model_type": "gpt_neox", **SMALL}
    return build_model(
        architecture, vocabulary_size=len(tokenizer), block_size=64, end_of_text=0, seed=0
    )


def test_the_prompt_is_what_both_sides_begin_with(tokenizer):
    pairs = [*PAIRS, PreferencePair("", "the cook", "the cook is a fool")]
    for pair, example in zip(pairs, tokenize_pairs(tokenizer, pairs, 64), strict=True):
        prompt = example["prompt_ids"]
        assert prompt[0] == tokenizer.eos_token_id
        for side, ids in ((pair.chosen, "chosen_ids"), (pair.rejected, "rejected_ids")):
            assert tokenizer.decode(prompt[1:] + example[ids]) == side
            assert example[ids]
    for pair, example in zip(PAIRS, tokenize_pairs(tokenizer, PAIRS, 64), strict=True):
        assert example["chosen_ids"][0] != example["rejected_ids"][0]
        name = pair.chosen.split()[1]
        assert tokenizer.decode(example["prompt_ids"][1:]).startswith(f"the {name} is a")


def test_long_pairs_are_cut_to_the_context(tokenizer):
    whole = tokenize_pairs(tokenizer, PAIRS, 64)
    for short, long in zip(tokenize_pairs(tokenizer, PAIRS, 9), whole, strict=True):
        longest = max(len(short["chosen_ids"]), len(short["rejected_ids"]))
        assert len(short["prompt_ids"]) + longest <= 9
        assert long["prompt_ids"][-len(short["prompt_ids"]) :] == short["prompt_ids"]
        assert long["chosen_ids"][: len(short["chosen_ids"])] == short["chosen_ids"]


def log_probability(model, prompt, side):
    with torch.no_grad():
        logits = model(torch.tensor([prompt + side])).logits[0].double().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(side) - 1)
    return sum(logits[place, token].item() for place, token in zip(places, side, strict=True))


def margins(model, reference, examples):
    rewards = [
        [
            log_probability(model, e["prompt_ids"], e[side])
            - log_probability(reference, e["prompt_ids"], e[side])
            for side in ("chosen_ids", "rejected_ids")
        ]
        for e in examples
    ]
    return BETA * torch.tensor([chosen - rejected for chosen, rejected in rewards])


def dpo(tokenizer, folder, examples, **changes):
    trained = model(tokenizer)
    losses, steps = train_on_pairs(
        trained,
        model(tokenizer),
        train_tokenizer([pair.chosen + pair.rejected for pair in PAIRS], 290),
        examples,
        settings=SETTINGS | changes,
        beta=BETA,
        checkpoints=folder,
        seed=5,
    )
    return trained.eval(), losses, steps


def test_dpo_lowers_its_loss_and_widens_the_margin(tokenizer, tmp_path):
    examples = tokenize_pairs(tokenizer, PAIRS, 64)
    trained, losses, steps = dpo(tokenizer, tmp_path, examples)
    assert steps == len(losses) == 12
    assert losses[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[0]["reward_margin"] == pytest.approx(0, abs=1e-6)
    assert losses[-1]["loss"] < 0.5 * losses[0]["loss"]
    # The same by definition, from the two models alone.
    found = margins(trained, model(tokenizer), examples)
    assert (found > 0).all()
    assert -logsigmoid(found).mean() < 0.5 * math.log(2)
    assert trained.config.pad_token_id is None


def test_the_loss_is_the_definition(tokenizer, tmp_path):
    """One step, then one more from its checkpoint: the second loss is that of the first step's."""
    examples = tokenize_pairs(tokenizer, PAIRS, 64)
    one = {"epochs": 1, "batch_size": 8}
    trained, _, _ = dpo(tokenizer, tmp_path / "one", examples, **one)
    _, losses, _ = dpo(tokenizer, tmp_path / "two", examples, **one | {"epochs": 2})
    found = margins(trained, model(tokenizer), examples)
    assert losses[1]["loss"] == pytest.approx(-logsigmoid(found).mean().item(), abs=1e-5)
    assert losses[1]["reward_margin"] == pytest.approx(found.mean().item(), abs=1e-5)


def test_an_interrupted_dpo_ends_as_an_uninterrupted_one(tokenizer, tmp_path, monkeypatch):
    examples = tokenize_pairs(tokenizer, PAIRS, 64)
    whole, _, _ = dpo(tokenizer, tmp_path / "whole", examples)

    class Interrupted(Exception):
        pass

    def interrupt(self, arguments, state, control, **_):
        if state.global_step == 8:
            raise Interrupted

    monkeypatch.setattr(LogLine, "on_log", interrupt)
    with pytest.raises(Interrupted):
        dpo(tokenizer, tmp_path / "parts", examples)
    assert (tmp_path / "parts" / "checkpoint-5").is_dir()
    monkeypatch.undo()
    resumed, losses, _ = dpo(tokenizer, tmp_path / "parts", examples)
    assert len(losses) == 12
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    shutil.rmtree(tmp_path)


def make_model_by_dpo(tokenizer, folder, start):
    """Run the script on a model directory, as the workflow does."""
    tokenizer.save_pretrained(folder / "tokenizer")
    write_jsonl(folder / "pairs.jsonl", [asdict(pair) for pair in PAIRS])
    settings = {
        "training": SETTINGS | {"epochs": 1},
        "trains": True,
        "steps": {"dpo": {"pairs": "pairs.tsv", "beta": BETA}},
        "names": ["target", "dpo"],
        "training_seed": 0,
        "seed": SEED,
    }
    command = [sys.executable, str(REPOSITORY / "scripts/make_model.py")]
    command += ["--settings", json.dumps(settings), "--given"]
    command.append(json.dumps({"dpo": {"pairs": [str(folder / "pairs.jsonl")]}}))
    command += ["--tokenizer", str(folder / "tokenizer"), "--start-from", str(start)]
    command += ["--checkpoint-steps", "5", "--output", str(folder / "made" / "0")]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


def test_dpo_begins_with_a_directory_that_was_made_elsewhere(tokenizer, tmp_path):
    """It has weights and a configuration, but no training record and no tokenizer."""
    start = tmp_path / "given"
    model(tokenizer).save_pretrained(start)
    ran = make_model_by_dpo(tokenizer, tmp_path, start)
    assert ran.returncode == 0, ran.stderr
    made = tmp_path / "made" / "0"
    record = read_json(made / "training.json")
    assert record["start_from_sha256"] == weights_sha256(start) != record["weights_sha256"]
    assert record["tokens_sha256"] is None and record["steps"] == 2
    assert load_tokenizer(made).get_vocab() == tokenizer.get_vocab()
    assert load_model(made).config.vocab_size == len(tokenizer)


def test_dpo_refuses_a_directory_of_another_vocabulary(tokenizer, tmp_path):
    start = tmp_path / "given"
    model(train_tokenizer([pair.chosen for pair in PAIRS], 270)).save_pretrained(start)
    ran = make_model_by_dpo(tokenizer, tmp_path, start)
    assert ran.returncode == 1
    assert error_line(ran.stderr).startswith(f"error: {start}: its vocabulary of 2")
