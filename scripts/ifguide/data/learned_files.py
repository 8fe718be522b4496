"""The files that rules leave of what judges and methods learn from: one of each set."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ifguide.data.benchmark_formats import PromptRecord
from ifguide.data.labelled_texts import read_labelled_texts
from ifguide.data.preferences import PreferencePair
from ifguide.data.prompts import LabelledText
from ifguide.files.artifacts import read_jsonl


class Learned(NamedTuple):
    """The sets of each kind, by their keys in the config."""

    queries: dict[str, list[PromptRecord]]
    pairs: dict[str, list[PreferencePair]]
    labelled: dict[str, list[LabelledText]]

    def records(self) -> dict[str, set[str]]:
        """Return the records of each set: the texts that decide the parts of their sources."""
        return {
            **{key: {one.identity.strip() for one in found} for key, found in self.queries.items()},
            **{key: {one.record.strip() for one in found} for key, found in self.pairs.items()},
            **{key: {one.record.strip() for one in found} for key, found in self.labelled.items()},
        }

    def texts(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the texts of each set: of query records and pairs with their prompts."""
        for key, records in self.queries.items():
            yield key, [one.prompt + (one.continuation or "") for one in records]
        for key, pairs in self.pairs.items():
            sides = [(pair.prompt + pair.chosen, pair.prompt + pair.rejected) for pair in pairs]
            yield key, [text for both in sides for text in both]
        for key, labelled in self.labelled.items():
            yield key, [one.text for one in labelled]


# The kinds of files, and the sections of the config that their names belong to.
KINDS = {
    "queries": "queries",
    "pairs": "methods",
    "rival_pairs": "influence.rivals",
    "texts": "texts",
    "judges": "classifiers",
    "rewards": "rewards",
}


def read_learned(files: Mapping[str, Sequence[Path]]) -> Learned:
    """Return the sets of some files, by KINDS, each named for what learns from it."""
    keyed = {
        kind: {f"{section}.{path.stem}": path for path in files[kind]}
        for kind, section in KINDS.items()
    }
    pairs = keyed["pairs"] | keyed["rival_pairs"]
    labelled = keyed["texts"] | keyed["judges"] | keyed["rewards"]
    return Learned(
        {key: read_prompt_file(path) for key, path in keyed["queries"].items()},
        {key: [PreferencePair(**one) for one in read_jsonl(path)] for key, path in pairs.items()},
        {key: read_labelled_texts(path) for key, path in labelled.items()},
    )


def read_prompt_file(path: Path) -> list[PromptRecord]:
    return [PromptRecord(**record) for record in read_jsonl(path)]
