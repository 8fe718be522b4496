# What all rules share: the checked config, the parts of the experiment that they ask, and the code
# that a rule depends on. Everything else that a rule needs is in scripts/ifguide/workflow/.

import os
import sys
from pathlib import Path

SOURCE = Path(workflow.current_basedir).parent.parent
SCRIPTS = SOURCE / "scripts"
sys.path.insert(0, str(SCRIPTS))

from ifguide.evaluation.judge import LEADING
from ifguide.methods.step import Pairs
from ifguide.workflow.config.opening import open_config
from ifguide.workflow.experiment import names, settings_of, without
from ifguide.workflow.layout import (
    ALL_MODEL_FILES,
    PLANTED_FILES,
    column_files,
    moved_mask,
    random_mask,
    shard_files,
)
from ifguide.workflow.methods import UNCENSORED
from ifguide.workflow.output_index import use_output_index
from ifguide.workflow.parts import open_experiment
from ifguide.workflow.rules import RuleCode, always, growing, launcher
from ifguide.workflow.run import (
    begin_run,
    end_run,
    only_looks,
    prepare_environment,
    print_results,
    recall,
    require_plain_path,
)

require_plain_path(SOURCE)
use_output_index()
prepare_environment(deployed=bool(workflow.deployment_settings.deployment_method))
open_config(workflow, config, SOURCE / "config/config.yaml")
parts = open_experiment(config)
experiment, layout, sources = parts.experiment, parts.layout, parts.sources
influence, methods, judges, shown = parts.influence, parts.methods, parts.judges, parts.shown
evaluation, rivals, cards = parts.evaluation, parts.rivals, parts.cards
lasting, learned = parts.lasting, parts.learned
recall(workflow, experiment, sources, judges)
SEED, SHARDS, PROXY, PROXY_SEED = (
    experiment.seed,
    experiment.shards,
    experiment.proxy,
    experiment.proxy_seed,
)
rule_code = RuleCode(workflow, SCRIPTS, methods, tracked=config["track_code"])
code, script = rule_code.digest, rule_code.script


# The groups of results in the report, which shows them by name.
CATEGORIES = {
    "result": "0. The result",
    "trained": "1. What was trained",
    "found": "2. What was found",
    "changed": "3. What changed",
    "cost": "4. What it cost",
}


wildcard_constraints:
    tokenizer=names(config["tokenizers"]),
    model=names(config["models"]),
    method=names(config["methods"]),
    seed="|".join(str(seed) for seed in experiment.seeds),
    direction=names(
        config["influence"]["directions"],
        config["influence"]["averages"],
        config["influence"]["rivals"],
    ),
    attribution="loss|position",
    selection=names(config["influence"]["selections"]),
    variant=names(config["influence"]["variants"]),
    queries=names(config["queries"]),
    texts=names(config["texts"]),
    own_generations=names(config["own_generations"]),
    reward=names(config["rewards"]),
    benchmark=names(config["benchmarks"]),
    classifier=names(config["classifiers"]),
    unit="document|block",
    download=names(sources.downloads),
    repository=names(sources.repositories),
    shard=r"\d{5}",
