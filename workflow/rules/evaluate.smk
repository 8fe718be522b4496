# Continuations, their toxicity, and fluency, for every evaluated model and method.

EXPLICIT_CHECKPOINT = CLASSIFIERS["explicit"].get(
    "checkpoint", f"{RESULTS}/classifiers/explicit/model.ckpt"
)
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


rule generate:
    input:
        code=code("generate_continuations.py"),
        model=lambda wildcards: model_files(wildcards.model, wildcards.method, wildcards.seed),
        prompts=f"{RESULTS}/prompts/{{benchmark}}.jsonl",
        lengths=f"{RESULTS}/prompts/lengths/{{model}}/{{benchmark}}.json",
    output:
        continuations=f"{EVALUATION}/continuations.jsonl",
    log:
        f"{LOGS}/generate/{{model}}/{{method}}/{{seed}}/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/generate/{{model}}/{{method}}/{{seed}}/{{benchmark}}.tsv"
    retries: 1
    conda:
        "../../envs/main.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        settings=lambda wildcards: settings_of(
            generation={
                **config["generation"],
                **config["benchmarks"][wildcards.benchmark].get("generation", {}),
            },
            seed=SEED,
        ),
        model=model_directory,
    message:
        "continuations of {wildcards.benchmark} by {wildcards.model}/{wildcards.method}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --model {params.model:q}"
        " --prompts {input.prompts:q} --output {output.continuations:q} > {log:q} 2>&1"


rule classify:
    input:
        code=code("classify_continuations.py"),
        continuations=f"{EVALUATION}/continuations.jsonl",
        explicit=(
            f"{RESULTS}/classifiers/explicit/quality.json"
            if "train" in CLASSIFIERS["explicit"]
            else EXPLICIT_CHECKPOINT
        ),
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
        f"{LOGS}/classify/{{model}}/{{method}}/{{seed}}/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/classify/{{model}}/{{method}}/{{seed}}/{{benchmark}}.tsv"
    conda:
        "../../envs/main.yaml"
    resources:
        mem_mb=4000,
        runtime=240,
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


rule toxicity:
    input:
        code=code("measure_toxicity.py"),
        generations=f"{EVALUATION}/generations.jsonl",
        record=f"{RESULTS}/models/{{model}}/{{method}}/{{seed}}/training.json",
    output:
        metrics=f"{EVALUATION}/metrics.json",
    log:
        f"{LOGS}/toxicity/{{model}}/{{method}}/{{seed}}/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/toxicity/{{model}}/{{method}}/{{seed}}/{{benchmark}}.tsv"
    wildcard_constraints:
        benchmark=names(benchmarks_of("prompts")),
    conda:
        "../../envs/main.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
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


rule perplexity:
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
        f"{LOGS}/perplexity/{{model}}/{{method}}/{{seed}}/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/perplexity/{{model}}/{{method}}/{{seed}}/{{benchmark}}.tsv"
    wildcard_constraints:
        benchmark=names(benchmarks_of("perplexity")),
    conda:
        "../../envs/main.yaml"
    resources:
        mem_mb=4000,
        runtime=120,
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


rule lambada:
    input:
        code=code("measure_lambada.py"),
        model=lambda wildcards: model_files(wildcards.model, wildcards.method, wildcards.seed),
        passages=f"{RESULTS}/passages/{{benchmark}}.jsonl",
    output:
        metrics=f"{EVALUATION}/metrics.json",
    log:
        f"{LOGS}/lambada/{{model}}/{{method}}/{{seed}}/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/lambada/{{model}}/{{method}}/{{seed}}/{{benchmark}}.tsv"
    wildcard_constraints:
        benchmark=names(benchmarks_of("lambada")),
    conda:
        "../../envs/main.yaml"
    resources:
        mem_mb=4000,
        runtime=120,
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


use rule prompts as passages with:
    output:
        records=f"{RESULTS}/passages/{{benchmark}}.jsonl",
        report=f"{RESULTS}/passages/{{benchmark}}.json",
    log:
        f"{LOGS}/passages/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/passages/{{benchmark}}.tsv"
    message:
        "passages of {wildcards.benchmark}"


METRICS = [
    f"{RESULTS}/evaluation/{model}/{method}/{seed}/{benchmark}/metrics.json"
    for model, method, seed in EVALUATED
    for benchmark in config["benchmarks"]
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
