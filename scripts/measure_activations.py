"""What a model computes on labelled texts, pooled over the tokens of each.

settings: {"max_length": tokens of a text, at most}.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.artifacts import read_jsonl
from ifguide.files.checksums import file_sha256
from ifguide.files.tensor_files import write_tensors
from ifguide.models.activations import measure_activations
from ifguide.models.loading import compute_device, load_model, weights_sha256


def main(arguments: Namespace) -> None:
    records = read_jsonl(arguments.texts)
    activations = measure_activations(
        load_model(arguments.model).to(compute_device()),
        load_tokenizer(arguments.model),
        [record["text"] for record in records],
        [record["label"] for record in records],
        max_length=arguments.settings["max_length"],
    )
    record = {
        "weights_sha256": weights_sha256(arguments.model),
        "texts_sha256": file_sha256(arguments.texts),
    }
    write_tensors(arguments.output, activations, record)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
