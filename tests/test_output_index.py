"""The index of outputs finds what Snakemake's own finds, and in linear time."""

import random
import time

import pytest
import yaml
from snakemake.io import IOFile
from snakemake.output_index import OutputIndex as Reference

from conftest import copy_repository, run_snakemake
from ifguide.workflow.output_index import OutputIndex
from own_texts import own_config, write_texts


class Outputs:
    """A rule, in so far as an index asks it."""

    def __init__(self, *files: str) -> None:
        self.files = [IOFile(file, rule=None) for file in files]

    def products(self) -> list:
        return self.files

    def is_producer(self, target: str) -> bool:
        return any(file.match(target) for file in self.files)


@pytest.mark.parametrize("seed", range(50))
def test_the_same_rules_are_found(seed):
    chosen = random.Random(seed)

    def pattern() -> str:
        wildcards = ["{x}", "{y,[ab]+}", "{z,[0-9]}"]
        return "".join(
            [*chosen.choices(["a", "b", "/", "1", ".npy", ""], k=2)]
            + [part for part in wildcards if chosen.random() < 0.5]
            + [*chosen.choices(["a", "b", "/", "1", ".npy", ""], k=2), "a"]
        )

    rules = [Outputs(*(pattern() for _ in range(chosen.randrange(1, 4)))) for _ in range(8)]
    targets = ["".join(chosen.choices(["a", "b", "/", "1", ".npy"], k=4)) + "a" for _ in range(200)]
    ours, reference = OutputIndex(rules), Reference(rules)
    for target in targets:
        assert ours.match(target) == reference.match(target)
        assert ours.match_producers(target) == reference.match_producers(target)


def test_a_thousand_shards_are_found_in_no_time():
    rule = Outputs(*(f"results/{{tokenizer}}/shard-{shard:05d}.npy" for shard in range(1000)))
    index = OutputIndex([rule])
    started = time.process_time()
    for shard in range(1000):
        assert index.match_producers(f"results/bpe/shard-{shard:05d}.npy") == {rule}
    assert time.process_time() - started < 1


def test_a_dry_run_of_a_thousand_shards(tmp_path):
    """Half a minute on two processors that do nothing else; here, where others run, twice that."""
    clone = copy_repository(tmp_path / "clone")
    write_texts(clone)
    config = own_config(corpus={"shards": 1000})
    (clone / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    arguments = ["--configfile", "mine.yaml", "--cores", "1", "--dry-run", "--quiet", "all"]
    ran = run_snakemake(clone, *arguments, timeout=120)
    assert ran.returncode == 0, ran.stdout
