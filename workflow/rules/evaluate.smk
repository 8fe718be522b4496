# Continuations, their toxicity, and fluency, for every evaluated model and method.

IMPLICIT_REPOSITORY = (
    model_repository(CLASSIFIERS["implicit"], CLASSIFIER_FILES)
    if "hub" in CLASSIFIERS["implicit"]
    else None
)
IMPLICIT_DIRECTORY = (
    repository_directory(IMPLICIT_REPOSITORY)
    if IMPLICIT_REPOSITORY
    else CLASSIFIERS["implicit"].get("path", f"{RESULTS}/classifiers/implicit")
)
EVALUATION = f"{RESULTS}/evaluation/{{model}}/{{method}}/{{seed}}/{{benchmark}}"
MEASURING = always(
    seed=SEED,
    resamples=config["evaluation"]["resamples"],
    level=config["evaluation"]["level"],
)


rule generate_continuations:
    input:
        code=code("generate_continuations.py"),
        model=lambda wildcards: model_files(wildcards.model, wildcards.method, wildcards.seed),
        reward=lambda wildcards: (
            [
                f"{reward_of(wildcards.model, wildcards.method)}/{name}"
                for name in ("model.safetensors", "config.json", "tokenizer.json")
            ]
            if reward_of(wildcards.model, wildcards.method)
            else []
        ),
        prompts=f"{RESULTS}/prompts/{{benchmark}}.jsonl",
        lengths=f"{RESULTS}/prompts/lengths/{{model}}/{{benchmark}}.json",
    output:
        continuations=f"{EVALUATION}/continuations/shard-{{shard}}.jsonl",
    log:
        f"{LOGS}/generate_continuations/{{model}}/{{method}}/{{seed}}/{{benchmark}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/generate_continuations/{{model}}/{{method}}/{{seed}}/{{benchmark}}/{{shard}}.tsv"
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
        gpu=0,
    params:
        settings=lambda wildcards: settings_of(
            generation={
                **without(config["generation"], "shards"),
                **config["benchmarks"][wildcards.benchmark].get("generation", {}),
            },
            shard=[int(wildcards.shard), config["generation"]["shards"]],
            rad=without(config["methods"][wildcards.method].get("rad", {}), "reward") or None,
            seed=SEED,
        ),
        model=model_directory,
        reward=lambda wildcards: (
            ["--reward", reward_of(wildcards.model, wildcards.method)]
            if reward_of(wildcards.model, wildcards.method)
            else []
        ),
    message:
        "continuations of {wildcards.benchmark} by {wildcards.model}/{wildcards.method}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --model {params.model:q}"
        " {params.reward:q}"
        " --prompts {input.prompts:q} --output {output.continuations:q} > {log:q} 2>&1"


rule classify_continuations:
    input:
        code=code("classify_continuations.py"),
        continuations=[
            f"{EVALUATION}/continuations/shard-{shard}.jsonl"
            for shard in shards(config["generation"]["shards"])
        ],
        explicit=EXPLICIT_READY,
        implicit=(
            f"{RESULTS}/classifiers/implicit/quality.json"
            if "train" in CLASSIFIERS["implicit"]
            else (
                repository_record(IMPLICIT_REPOSITORY)
                if IMPLICIT_REPOSITORY
                else f"{IMPLICIT_DIRECTORY}/config.json"
            )
        ),
    output:
        generations=f"{EVALUATION}/generations.jsonl",
    log:
        f"{LOGS}/classify_continuations/{{model}}/{{method}}/{{seed}}/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/classify_continuations/{{model}}/{{method}}/{{seed}}/{{benchmark}}.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        settings=always(toxic_label=CLASSIFIERS["implicit"].get("toxic_label", 1)),
        explicit=lambda wildcards: EXPLICIT_CHECKPOINT,
        implicit=lambda wildcards: IMPLICIT_DIRECTORY,
    message:
        "toxicity of {wildcards.model}/{wildcards.method} on {wildcards.benchmark}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q}"
        " --continuations {input.continuations:q} --explicit {params.explicit:q}"
        " --implicit {params.implicit:q} --output {output.generations:q} > {log:q} 2>&1"


rule measure_toxicity:
    input:
        code=code("measure_toxicity.py"),
        generations=f"{EVALUATION}/generations.jsonl",
        record=lambda wildcards: f"{model_directory(wildcards)}/training.json",
    output:
        metrics=f"{EVALUATION}/metrics.json",
    log:
        f"{LOGS}/measure_toxicity/{{model}}/{{method}}/{{seed}}/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/measure_toxicity/{{model}}/{{method}}/{{seed}}/{{benchmark}}.tsv"
    wildcard_constraints:
        benchmark=names(benchmarks_of("prompts")),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=always(
            seed=SEED,
            threshold=config["evaluation"]["threshold"],
            resamples=config["evaluation"]["resamples"],
            level=config["evaluation"]["level"],
        ),
    message:
        "metrics of {wildcards.model}/{wildcards.method} on {wildcards.benchmark}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q}"
        " --generations {input.generations:q} --training-record {input.record:q} --benchmark {wildcards.benchmark:q}"
        " --model {wildcards.model:q} --method {wildcards.method:q}"
        " --training-seed {wildcards.seed:q} --output {output.metrics:q} > {log:q} 2>&1"


rule measure_perplexity:
    input:
        code=code("measure_perplexity.py"),
        model=lambda wildcards: model_files(wildcards.model, wildcards.method, wildcards.seed),
        corpus=lambda wildcards: [
            f"{corpus_of(wildcards.model)}/held_out/{name}"
            for name in ["meta.json", "tokens/shard-00000.npy", "documents/shard-00000.npy"]
            + (["truth/shard-00000.npy"] if HAS_TRUTH else [])
        ],
    output:
        metrics=f"{EVALUATION}/metrics.json",
    log:
        f"{LOGS}/measure_perplexity/{{model}}/{{method}}/{{seed}}/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/measure_perplexity/{{model}}/{{method}}/{{seed}}/{{benchmark}}.tsv"
    wildcard_constraints:
        benchmark=names(benchmarks_of("perplexity")),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=0,
    params:
        settings=MEASURING,
        model=model_directory,
        corpus=lambda wildcards: f"{corpus_of(wildcards.model)}/held_out",
    message:
        "held-out perplexity of {wildcards.model}/{wildcards.method}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --model {params.model:q} --benchmark {wildcards.benchmark:q}"
        " --model-name {wildcards.model:q} --method {wildcards.method:q}"
        " --training-seed {wildcards.seed:q} --output {output.metrics:q} > {log:q} 2>&1"


rule measure_lambada:
    input:
        code=code("measure_lambada.py"),
        model=lambda wildcards: model_files(wildcards.model, wildcards.method, wildcards.seed),
        passages=f"{RESULTS}/passages/{{benchmark}}.jsonl",
    output:
        metrics=f"{EVALUATION}/metrics.json",
    log:
        f"{LOGS}/measure_lambada/{{model}}/{{method}}/{{seed}}/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/measure_lambada/{{model}}/{{method}}/{{seed}}/{{benchmark}}.tsv"
    wildcard_constraints:
        benchmark=names(benchmarks_of("lambada")),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=0,
    params:
        settings=MEASURING,
        model=model_directory,
    message:
        "last words by {wildcards.model}/{wildcards.method}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --passages {input.passages:q}"
        " --model {params.model:q} --benchmark {wildcards.benchmark:q}"
        " --model-name {wildcards.model:q} --method {wildcards.method:q}"
        " --training-seed {wildcards.seed:q} --output {output.metrics:q} > {log:q} 2>&1"


use rule read_prompts as read_passages with:
    output:
        records=f"{RESULTS}/passages/{{benchmark}}.jsonl",
        report=f"{RESULTS}/passages/{{benchmark}}.json",
    log:
        f"{LOGS}/read_passages/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/read_passages/{{benchmark}}.tsv"
    message:
        "passages of {wildcards.benchmark}"


METRICS = [
    f"{RESULTS}/evaluation/{model}/{method}/{seed}/{benchmark}/metrics.json"
    for model, method, seed in EVALUATED
    for benchmark in config["benchmarks"]
    # What acts while text is sampled gives a text that is there already no other probability.
    if "decode" not in config["methods"][method] or benchmark in benchmarks_of("prompts")
]


rule detoxify:
    input:
        [
            f"{RESULTS}/evaluation/{model}/{method}/{seed}/{benchmark}/generations.jsonl"
            for model, method, seed in EVALUATED
            for benchmark in benchmarks_of("prompts")
        ],


rule evaluate:
    input:
        METRICS,
