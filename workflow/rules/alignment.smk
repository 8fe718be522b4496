# Methods beside the training text: preference pairs (DPO), and reward-augmented decoding (RAD).


rule read_pairs:
    input:
        code=code("read_pairs.py"),
        files=lambda wildcards: inputs_of(
            pairs_of(wildcards.method), f"methods.{wildcards.method}.dpo"
        ),
    output:
        pairs=f"{RESULTS}/pairs/{{method}}.jsonl",
        report=f"{RESULTS}/pairs/{{method}}.json",
    log:
        f"{LOGS}/read_pairs/{{method}}.log",
    benchmark:
        f"{BENCHMARKS}/read_pairs/{{method}}.tsv"
    wildcard_constraints:
        method=only(methods_with("dpo")),
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        settings=lambda wildcards: settings_of(
            pairs=without(pairs_of(wildcards.method), "files"), seed=SEED
        ),
        paths=lambda wildcards: paths_of(
            pairs_of(wildcards.method), f"methods.{wildcards.method}.dpo"
        ),
    message:
        "pairs of {wildcards.method}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --files {params.paths:q}"
        " --report {output.report:q} --output {output.pairs:q} > {log:q} 2>&1"


rule train_dpo:
    input:
        code=code("train_dpo.py"),
        pairs=f"{RESULTS}/pairs/{{method}}.jsonl",
        tokenizer=lambda wildcards: f"{corpus_of(wildcards.model)}/tokenizer/tokenizer.json",
        start_from=start_files,
    output:
        weights=f"{RESULTS}/models/{{model}}/{{method}}/{{seed}}/model.safetensors",
        architecture=f"{RESULTS}/models/{{model}}/{{method}}/{{seed}}/config.json",
        tokenizer=f"{RESULTS}/models/{{model}}/{{method}}/{{seed}}/tokenizer.json",
        losses=f"{RESULTS}/models/{{model}}/{{method}}/{{seed}}/losses.csv",
        record=f"{RESULTS}/models/{{model}}/{{method}}/{{seed}}/training.json",
    log:
        f"{LOGS}/train_dpo/{{model}}/{{method}}/{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/train_dpo/{{model}}/{{method}}/{{seed}}.tsv"
    wildcard_constraints:
        method=only(methods_with("dpo")),
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(720),
        gpu=0,
    params:
        settings=lambda wildcards: settings_of(
            training=without(
                dpo_training_of(wildcards.model, wildcards.method), "checkpoint_steps"
            ),
            beta=config["methods"][wildcards.method]["dpo"]["beta"],
            names=[wildcards.model, wildcards.method],
            training_seed=int(wildcards.seed),
            seed=SEED,
        ),
        folder=subpath(output.weights, parent=True),
        tokenizer=subpath(input.tokenizer, parent=True),
        start_from=start_directory,
        # Not tracked, for the reason given in train_model.
        checkpoint_steps=lambda wildcards, input: dpo_training_of(
            wildcards.model, wildcards.method
        )["checkpoint_steps"],
    message:
        "train {wildcards.model} by {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --pairs {input.pairs:q}"
        " --tokenizer {params.tokenizer:q} --start-from {params.start_from:q}"
        " --checkpoint-steps {params.checkpoint_steps:q} --output {params.folder:q} > {log:q} 2>&1"


rule train_reward:
    input:
        code=code("train_reward.py"),
        tokenizer=f"{RESULTS}/corpus/{{tokenizer}}/tokenizer/tokenizer.json",
        files=lambda wildcards: source_inputs(
            config["rewards"][wildcards.reward]["train"]["sources"],
            f"rewards.{wildcards.reward}.train.sources",
        ),
    output:
        weights=f"{RESULTS}/rewards/{{reward}}/{{tokenizer}}/model.safetensors",
        architecture=f"{RESULTS}/rewards/{{reward}}/{{tokenizer}}/config.json",
        tokenizer=f"{RESULTS}/rewards/{{reward}}/{{tokenizer}}/tokenizer.json",
        quality=f"{RESULTS}/rewards/{{reward}}/{{tokenizer}}/quality.json",
    log:
        f"{LOGS}/train_reward/{{reward}}/{{tokenizer}}.log",
    benchmark:
        f"{BENCHMARKS}/train_reward/{{reward}}/{{tokenizer}}.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        settings=lambda wildcards: settings_of(
            names=[wildcards.reward, wildcards.tokenizer],
            train={
                **config["rewards"][wildcards.reward]["train"],
                "sources": [
                    without(source, "files", "hub", "revision")
                    for source in config["rewards"][wildcards.reward]["train"]["sources"]
                ],
            },
            seed=SEED,
        ),
        paths=lambda wildcards: source_paths(
            config["rewards"][wildcards.reward]["train"]["sources"],
            f"rewards.{wildcards.reward}.train.sources",
        ),
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output.weights, parent=True),
    message:
        "train the reward model {wildcards.reward} with {wildcards.tokenizer}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --files {params.paths:q}"
        " --tokenizer {params.tokenizer:q} --output {params.folder:q} > {log:q} 2>&1"
