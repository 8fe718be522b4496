"""The job that writes continuations: divided, interrupted, guided, it writes the same."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
from transformers import GPTNeoXConfig, GPTNeoXForTokenClassification

import generate_continuations
from ifguide.data.corpus import train_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import read_jsonl, write_jsonl
from ifguide.files.checksums import SUMS
from ifguide.models.loading import build_model, weights_sha256

PROMPTS = ["the cook", "a guide", "the old miller", "who", "their tailor is", "some", "a poet"]
ARCHITECTURE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 48,
}
GENERATION = {
    "continuations": 3,
    "top_p": 0.9,
    "temperature": 1.0,
    "max_new_tokens": 5,
    "rows_per_batch": 6,
}


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A language model, a reward model with its tokenizer, one with another, and prompts."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer, other = train_tokenizer(PROMPTS, 270), train_tokenizer(["xxyyzz"], 259)
    model = build_model(
        {"model_type": "gpt_neox", **ARCHITECTURE},
        vocabulary_size=len(tokenizer),
        block_size=32,
        end_of_text=0,
        seed=0,
    )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for name, own in (("reward", tokenizer), ("other", other)):
        config = GPTNeoXConfig(**ARCHITECTURE, vocab_size=len(own), num_labels=1)
        GPTNeoXForTokenClassification(config).save_pretrained(folder / name)
        own.save_pretrained(folder / name)
    records = [{"prompt": prompt, "split": "toxic", "group": None} for prompt in PROMPTS]
    write_jsonl(folder / "prompts.jsonl", records)
    return folder


def generate(folder: Path, output: Path, shard=(0, 1), reward: str | None = None, **changes):
    generate_together(folder, [output], shard, reward, [changes])
    return read_jsonl(output)


def generate_together(folder, outputs, shard=(0, 1), reward=None, changes=()):
    """Have one job write each output, by settings that differ from the others' by `changes`."""
    names = [f"benchmark_{number}" for number in range(len(outputs))]
    settings = {
        "benchmarks": {name: GENERATION | own for name, own in zip(names, changes, strict=True)},
        "shard": list(shard),
        "steps": {"rad": {"reward": "own", "beta": 5.0, "context": "prompt"}} if reward else {},
        "seed": 4,
    }
    generate_continuations.main(
        Namespace(
            settings=settings,
            model=folder / "model",
            given={"rad": {"reward": [str(folder / reward)]}} if reward else {},
            benchmarks=names,
            prompts=[folder / "prompts.jsonl"] * len(names),
            output=outputs,
            code="",
        )
    )


def test_every_prompt_has_its_continuations_in_order(folder, tmp_path):
    written = generate(folder, tmp_path / "all.jsonl")
    owners = [(line["prompt_index"], line["prompt"], line["sample"]) for line in written]
    assert owners == [(i, prompt, s) for i, prompt in enumerate(PROMPTS) for s in range(3)]
    assert {line["weights_sha256"] for line in written} == {weights_sha256(folder / "model")}
    assert {path.name for path in tmp_path.iterdir()} == {
        *("all.jsonl", ".all.jsonl.made_from", SUMS)
    }


@pytest.mark.parametrize("reward", [None, "reward"])
@pytest.mark.parametrize("shards", [2, 9])
def test_the_number_of_jobs_changes_nothing(folder, tmp_path, shards, reward):
    whole = generate(folder, tmp_path / "all.jsonl", reward=reward)
    parts = [
        generate(folder, tmp_path / f"{index}.jsonl", (index, shards), reward)
        for index in range(shards)
    ]
    together = [line for part in parts for line in part]
    together.sort(key=lambda line: (line["prompt_index"], line["sample"]))
    assert together == whole


def test_an_interrupted_job_goes_on_from_finished_prompts(folder, tmp_path, monkeypatch):
    whole = generate(folder, tmp_path / "all.jsonl")
    asked = []
    original = generate_continuations.generate

    def interrupted(model, tokenizer, prompts, *arguments, **settings):
        asked.append(len(prompts) - len(settings["finished"]))
        for number, continuation in enumerate(
            original(model, tokenizer, prompts, *arguments, **settings)
        ):
            if len(asked) == 1 and number == 10:  # three prompts and one continuation
                raise Interrupted
            yield continuation

    monkeypatch.setattr(generate_continuations, "generate", interrupted)
    output = tmp_path / "parts.jsonl"
    with pytest.raises(Interrupted):
        generate(folder, output)
    finished = tmp_path / ".parts.jsonl.finished"
    lines = finished.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[2] = lines[2].replace('"continuation": "', '"continuation": "no ')  # a damaged line
    lines.append(lines[1][:90])  # one that was cut off
    finished.write_text("".join(lines), encoding="utf-8")
    assert generate(folder, output, rows_per_batch=100) == whole
    assert asked == [7, 5]
    assert not finished.exists()


CHANGES = [{}, {"continuations": 2, "max_new_tokens": 6}, {"top_p": 0.5}]


@pytest.mark.parametrize("reward", [None, "reward"])
def test_benchmarks_of_one_job_are_what_each_is_alone(folder, tmp_path, reward):
    alone = [tmp_path / f"alone_{number}.jsonl" for number in range(3)]
    for path, own in zip(alone, CHANGES, strict=True):
        generate(folder, path, reward=reward, **own)
    for order in ([0, 1, 2], [2, 0, 1]):
        together = [tmp_path / f"{order[0]}_{number}.jsonl" for number in order]
        generate_together(folder, together, reward=reward, changes=[CHANGES[n] for n in order])
        for number, path in zip(order, together, strict=True):
            assert path.read_bytes() == alone[number].read_bytes()


def test_what_is_made_from_the_same_is_kept(folder, tmp_path, monkeypatch):
    """A benchmark that is added or changed is all that the same job generates again."""
    outputs = [tmp_path / f"{number}.jsonl" for number in range(2)]
    generate_together(folder, outputs[:1], changes=[{}])
    sampled = []
    original = generate_continuations.generate

    def noted(model, tokenizer, prompts, sampling, **settings):
        sampled.append(sampling.max_new_tokens)
        return original(model, tokenizer, prompts, sampling, **settings)

    monkeypatch.setattr(generate_continuations, "generate", noted)
    before = outputs[0].stat().st_ino, outputs[0].read_bytes()
    changes = [{"rows_per_batch": 2}, {"max_new_tokens": 6}]
    generate_together(folder, outputs, changes=changes)
    assert sampled == [6]
    generate_together(folder, outputs, changes=[{}, {"max_new_tokens": 4}])
    assert sampled == [6, 4]
    assert (outputs[0].stat().st_ino, outputs[0].read_bytes()) == before
    # What is damaged is not kept, nor is what has lost its record.
    outputs[0].write_bytes(before[1][:-1])
    (tmp_path / ".1.jsonl.made_from").unlink()
    generate_together(folder, outputs, changes=[{}, {"max_new_tokens": 4}])
    assert sampled == [6, 4, 5, 4]
    assert outputs[0].read_bytes() == before[1]


def test_a_job_that_fails_gives_no_benchmark_its_name_and_goes_on_from_it(
    folder, tmp_path, monkeypatch
):
    """All that a failed job declares is removed: what is finished lies beside it."""
    whole = [generate(folder, tmp_path / f"whole_{n}.jsonl", **CHANGES[n]) for n in range(2)]
    outputs = [tmp_path / f"{number}.jsonl" for number in range(2)]
    original, asked = generate_continuations.generate, []

    def interrupted(model, tokenizer, prompts, sampling, **settings):
        asked.append(sampling.max_new_tokens)
        if len(asked) == 2:
            raise Interrupted
        return original(model, tokenizer, prompts, sampling, **settings)

    monkeypatch.setattr(generate_continuations, "generate", interrupted)
    with pytest.raises(Interrupted):
        generate_together(folder, outputs, changes=CHANGES[:2])
    assert not any(path.exists() for path in outputs)
    generate_together(folder, outputs, changes=CHANGES[:2])
    assert asked == [5, 6, 6]
    assert [read_jsonl(path) for path in outputs] == whole


def test_what_another_job_left_is_not_used(folder, tmp_path):
    output = tmp_path / "all.jsonl"
    whole = generate(folder, output)
    output.unlink()
    other = {"settings": "other"}
    lines = [json.dumps(other), json.dumps([whole[0] | {"continuation": "stale"}])]
    (tmp_path / ".all.jsonl.finished").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert generate(folder, output) == whole


def test_a_reward_model_changes_continuations_and_is_named(folder, tmp_path):
    plain = generate(folder, tmp_path / "plain.jsonl")
    guided = generate(folder, tmp_path / "guided.jsonl", reward="reward", max_new_tokens=6)
    assert {line["reward_sha256"] for line in guided} == {weights_sha256(folder / "reward")}
    assert "reward_sha256" not in plain[0]
    with pytest.raises(InputError, match="a reward model with another tokenizer"):
        generate(folder, tmp_path / "other.jsonl", reward="other")
