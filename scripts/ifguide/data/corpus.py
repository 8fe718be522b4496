"""Documents become blocks of tokens: tokenizer, packing, and memory-mapped shards.

The documents of a corpus are joined, an end-of-text token after each, and cut into blocks of equal
length, so that a document may span blocks and a block may hold several documents. Only the last
block can have padding; its document id is PADDING.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ifguide.data.documents import Document
from ifguide.data.special_tokens import plain_text_backend
from ifguide.errors import InputError
from ifguide.files.artifacts import open_array, read_json, write_array
from ifguide.files.checksums import RecordedTogether, file_sha256

END_OF_TEXT = "<|endoftext|>"
PADDING = -1
# Shards hold whole groups of blocks, so that a stage whose batch size divides this number sees the
# same batches, and computes the same bits, whatever the number of shards.
BLOCKS_PER_GROUP = 64
# A corpus of one block has at least this fraction of it filled (1/16), for a small held-out set.
LARGEST_EMPTINESS = 16


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, end of text being its only special token (id 0).

    Raises InputError where `vocabulary_size` cannot hold the 256 bytes and the special token.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(alphabet) + 1
    if vocabulary_size < smallest:
        raise InputError(
            f"config key tokenizers.*.vocabulary_size: {vocabulary_size} is too small; a "
            f"byte-level tokenizer needs at least {smallest} (256 bytes and the end-of-text token)"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT
    )


def end_of_text_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id that separates documents. Raises InputError where the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"tokenizer {tokenizer.name_or_path}: it has no end-of-text token (eos_token); set one "
            "in its tokenizer_config.json"
        )
    return tokenizer.eos_token_id


@dataclass(frozen=True)
class TokenizedText:
    """Token ids and the character range [start, end) of each, both of the text's tokens."""

    ids: np.ndarray
    offsets: np.ndarray


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[TokenizedText]:
    """Tokenize texts as plain text: special tokens written in a text stay ordinary characters."""
    backend = plain_text_backend(tokenizer)
    encodings = backend.encode_batch(list(texts), add_special_tokens=False)
    return [
        TokenizedText(
            np.asarray(encoding.ids, dtype=np.int64),
            np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2),
        )
        for encoding in encodings
    ]


def token_truth(offsets: np.ndarray, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return which tokens touch a toxic character span: bool, (tokens,).

    Spans should not begin or end with white space (`trimmed_spans`): a byte-level token begins with
    the space before its word, which would make the word after a span toxic.
    """
    toxic = np.zeros(len(offsets), dtype=bool)
    for start, end in spans:
        toxic |= (offsets[:, 0] < end) & (offsets[:, 1] > start)
    return toxic


def trimmed_spans(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans without white space at their ends; those of nothing else are left out."""
    trimmed = []
    for start, end in spans:
        marked = text[start:end]
        start += len(marked) - len(marked.lstrip())
        end -= len(marked) - len(marked.rstrip())
        if start < end:
            trimmed.append((start, end))
    return trimmed


@dataclass(frozen=True)
class TokenStream:
    """One document's tokens: ids, and truth where it is known."""

    document: int
    ids: np.ndarray
    truth: np.ndarray | None


def token_streams(
    documents: Iterable[tuple[int, Document]],
    tokenizer: PreTrainedTokenizerBase,
    batch: int = 256,
) -> Iterator[TokenStream]:
    """Tokenize numbered documents, each followed by the end-of-text token."""
    end = end_of_text_id(tokenizer)

    def encoded(pending: list[tuple[int, Document]]) -> Iterator[TokenStream]:
        tokenized = tokenize(tokenizer, [document.text for _, document in pending])
        for (index, document), text in zip(pending, tokenized, strict=True):
            truth = None
            if document.spans is not None:
                spans = trimmed_spans(document.text, document.spans)
                truth = np.append(token_truth(text.offsets, spans), False)
            yield TokenStream(index, np.append(text.ids, end), truth)

    pending: list[tuple[int, Document]] = []
    for numbered in documents:
        pending.append(numbered)
        if len(pending) == batch:
            yield from encoded(pending)
            pending = []
    yield from encoded(pending)


def shard_bounds(blocks: int, shards: int) -> list[tuple[int, int]]:
    """Split `blocks` into `shards` contiguous ranges of whole groups; late ones may be empty."""
    groups = -(-blocks // BLOCKS_PER_GROUP)
    edges = [
        min(blocks, BLOCKS_PER_GROUP * (groups * shard // shards)) for shard in range(shards + 1)
    ]
    return list(zip(edges[:-1], edges[1:], strict=True))


def shard_name(shard: int) -> str:
    return f"shard-{shard:05d}.npy"


@contextlib.contextmanager
def _own_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder, which is removed afterwards; what a killed job left there goes first."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_blocks(
    streams: Iterable[TokenStream],
    directory: Path,
    *,
    block_size: int,
    shards: int,
    vocabulary_size: int,
    end_of_text: int,
    truth: bool,
) -> dict:
    """Pack token streams into shards below `directory`; return what `meta.json` records.

    tokens/: uint16 or uint32, documents/: int32, truth/: bool, each (blocks, block_size). With
    `truth`, a document whose toxic spans are not known is marked harmless token by token, and
    `documents_without_truth` holds its id, as [start, stop) ranges.
    The stream passes through flat files, so memory does not grow with the corpus.
    Raises InputError where there is no document, and where a block is far longer than all of them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    token_type = np.uint16 if vocabulary_size <= 2**16 else np.uint32
    column_types = {"tokens": token_type, "documents": np.int32, "truth": np.bool_}
    content = hashlib.sha256()
    documents = tokens = toxic_tokens = 0
    without_truth: list[list[int]] = []
    with _own_folder(directory / ".flat") as scratch, contextlib.ExitStack() as stack:
        flat = {name: scratch / name for name in column_types}
        files = {name: stack.enter_context(open(path, "wb")) for name, path in flat.items()}

        def append(ids: np.ndarray, document: int, toxic: np.ndarray | None) -> None:
            ids = ids.astype(token_type)
            content.update(ids.tobytes())
            files["tokens"].write(ids.tobytes())
            files["documents"].write(np.full(len(ids), document, np.int32).tobytes())
            files["truth"].write((np.zeros(len(ids), bool) if toxic is None else toxic).tobytes())

        for stream in streams:
            append(stream.ids, stream.document, stream.truth)
            documents += 1
            tokens += len(stream.ids)
            if stream.truth is not None:
                toxic_tokens += int(stream.truth.sum())
            elif without_truth and without_truth[-1][1] == stream.document:
                without_truth[-1][1] += 1
            else:
                without_truth.append([stream.document, stream.document + 1])
        if documents == 0:
            raise InputError(
                "config key corpus.sources: no document is left to train on; check the paths, "
                "`limit` and `held_out`"
            )
        if tokens * LARGEST_EMPTINESS < block_size:
            raise InputError(
                f"config key corpus.block_size: {block_size} is far longer than these {documents} "
                f"documents, of {tokens} tokens together, so that nearly all of the one block "
                "would be padding; set it far below that"
            )
        padding = -tokens % block_size
        append(np.full(padding, end_of_text), PADDING, None)
        stack.close()
        blocks = (tokens + padding) // block_size
        bounds = shard_bounds(blocks, shards)
        paths = {
            (name, shard): directory / name / shard_name(shard)
            for name in ["tokens", "documents"] + (["truth"] if truth else [])
            for shard in range(len(bounds))
        }
        with RecordedTogether(paths.values()) as together:
            for (name, shard), path in paths.items():
                array = _read_flat(flat[name], column_types[name], *bounds[shard], block_size)
                write_array(path, array, together.publish)
    return {
        "block_size": block_size,
        "blocks": blocks,
        "tokens": tokens,
        "padding": padding,
        "documents": documents,
        "documents_without_truth": without_truth,
        "toxic_tokens": toxic_tokens,
        "vocabulary_size": vocabulary_size,
        "end_of_text": end_of_text,
        "content_sha256": content.hexdigest(),
        "truth": truth,
        "shards": [{"blocks": stop - start, "first_block": start} for start, stop in bounds],
    }


def _read_flat(path: Path, kind: type, start: int, stop: int, block_size: int) -> np.ndarray:
    if stop == start:
        return np.zeros((0, block_size), kind)
    offset = start * block_size * np.dtype(kind).itemsize
    return np.memmap(path, kind, "r", offset=offset, shape=(stop - start, block_size))


class ShardedArray:
    """Shards of equal width read as one array of rows, memory-mapped."""

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self.shards = list(shards)
        self.first_rows = np.cumsum([0] + [len(shard) for shard in self.shards])

    def __len__(self) -> int:
        return int(self.first_rows[-1])

    def __getitem__(self, row: int) -> np.ndarray:
        shard = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return self.shards[shard][row - self.first_rows[shard]]

    def rows(self, indices: Iterable[int]) -> np.ndarray:
        """Return a copy of the named rows: (len(indices), width)."""
        return np.stack([self[int(index)] for index in indices])

    def stretch(self, start: int, stop: int) -> np.ndarray:
        """Return a copy of the entries [start, stop) of all rows, one after the other."""
        width = len(self[0])
        rows = range(start // width, -(-stop // width))
        return self.rows(rows).reshape(-1)[start - rows.start * width :][: stop - start]


@dataclass(frozen=True)
class Corpus:
    """A tokenized corpus on disk: sharded arrays and the metadata that describes them."""

    directory: Path
    meta: dict
    tokens: ShardedArray
    documents: ShardedArray
    truth: ShardedArray | None

    @property
    def content_sha256(self) -> str:
        return self.meta["content_sha256"]

    @property
    def block_size(self) -> int:
        return self.meta["block_size"]

    def truth_known(self) -> np.ndarray:
        """Return of which documents it is known which tokens are toxic: bool, (documents,)."""
        known = np.full(self.meta["documents"], self.truth is not None)
        for start, stop in self.meta["documents_without_truth"]:
            known[start:stop] = False
        return known

    def valid(self, row: int) -> np.ndarray:
        """Return which tokens of block `row` are not padding: bool, (block_size,).

        `row` counts from the corpus's first block, also where only one shard is open.
        """
        if row < self.meta["blocks"] - 1 or not self.meta["padding"]:
            return np.ones(self.block_size, dtype=bool)
        return np.arange(self.block_size) < self.block_size - self.meta["padding"]


def open_corpus(directory: str | Path, shard: int | None = None) -> Corpus:
    """Open a corpus, or one shard of it, after verifying the checksums of what is opened.

    Raises InputError where a shard is missing, damaged or not the recorded one.
    """
    directory = Path(directory)
    meta = read_json(directory / "meta.json")
    numbers = range(len(meta["shards"])) if shard is None else [shard]

    def column(name: str) -> ShardedArray:
        return ShardedArray(
            [open_array(directory / name / shard_name(number)) for number in numbers]
        )

    return Corpus(
        directory,
        meta,
        column("tokens"),
        column("documents"),
        column("truth") if meta["truth"] else None,
    )


def tokenizer_sha256(directory: str | Path) -> str:
    return file_sha256(Path(directory) / "tokenizer.json")
