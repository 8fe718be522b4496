"""Measure every judge by functional tests: how often it is right about cases made for each.

settings: {"judges": {name: what opens it, as of `evaluation.judge_forms.open_judge`}, "language":
"planted" or "english", "cases": of each function, "threshold": 0.5, "level": 0.95, "seed": int}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from pathlib import Path

from ifguide.data import english_functions, planted_functions
from ifguide.data.functional_cases import draw_cases
from ifguide.evaluation.functional_tests import functional_table
from ifguide.evaluation.judge import TOXICITY
from ifguide.evaluation.judge_forms import open_judge
from ifguide.files.artifacts import write_jsonl
from ifguide.files.tables import write_table

log = logging.getLogger(__name__)

FUNCTIONS = {"planted": planted_functions.FUNCTIONS, "english": english_functions.FUNCTIONS}


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    cases = draw_cases(FUNCTIONS[settings["language"]], settings["cases"], settings["seed"])
    texts = [case.text for case in cases]
    scores = {
        name: open_judge(name, given).scores([""] * len(texts), texts)[TOXICITY]
        for name, given in settings["judges"].items()
    }
    judged = [
        case._asdict() | {"scores": {name: scores[name][row] for name in scores}}
        for row, case in enumerate(cases)
    ]
    write_jsonl(arguments.cases, judged)
    table = functional_table(cases, scores, settings["threshold"], settings["level"])
    write_table(arguments.output, table)
    right = table.groupby("judge", sort=False)["value"].mean()
    log.info("mean share right by function: %s", right.round(3).to_dict())


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="a row a judge and function")
    parser.add_argument("--cases", type=Path, required=True, help="the cases with their scores")
    run(main, parser)
