# Language models and classifiers.

CLASSIFIERS = config["classifiers"]
EXPLICIT_CHECKPOINT = CLASSIFIERS["explicit"].get(
    "checkpoint", f"{RESULTS}/classifiers/explicit/model.ckpt"
)
# The last file of it that is written.
EXPLICIT_READY = (
    f"{RESULTS}/classifiers/explicit/quality.json"
    if "train" in CLASSIFIERS["explicit"]
    else EXPLICIT_CHECKPOINT
)


# A model that is given is taken as it is; what is made from it is trained.
ruleorder: take_model > make_model


rule take_model:
    input:
        code=code("take_model.py"),
        meta=lambda wildcards: f"{corpus_of(wildcards.model)}/meta.json",
        tokenizer=lambda wildcards: f"{corpus_of(wildcards.model)}/tokenizer/tokenizer.json",
        given=lambda wildcards: given_files(wildcards.model),
    output:
        weights=f"{RESULTS}/models/{{model}}/none/{{seed}}/model.safetensors",
        architecture=f"{RESULTS}/models/{{model}}/none/{{seed}}/config.json",
        tokenizer=f"{RESULTS}/models/{{model}}/none/{{seed}}/tokenizer.json",
        losses=f"{RESULTS}/models/{{model}}/none/{{seed}}/losses.csv",
        record=f"{RESULTS}/models/{{model}}/none/{{seed}}/training.json",
    log:
        f"{LOGS}/take_model/{{model}}/{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/take_model/{{model}}/{{seed}}.tsv"
    wildcard_constraints:
        model=names({name: entry for name, entry in config["models"].items() if "path" in entry}),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        given=lambda wildcards: config["models"][wildcards.model]["path"],
        corpus=lambda wildcards: corpus_of(wildcards.model),
        folder=subpath(output.weights, parent=True),
    message:
        "take the weights of {wildcards.model} as they are"
    shell:
        "python {input.code[0]:q} --given {params.given:q} --corpus {params.corpus:q}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule make_model:
    input:
        code=code("train_model.py"),
        corpus=lambda wildcards: column_files(
            training_corpus(wildcards.model, wildcards.method), "tokens"
        ),
        tokenizer=lambda wildcards: f"{corpus_of(wildcards.model)}/tokenizer/tokenizer.json",
        mask=mask_files,
        start_from=start_files,
        architecture=lambda wildcards: architecture_inputs(wildcards.model),
    output:
        weights=f"{RESULTS}/models/{{model}}/{{method}}/{{seed}}/model.safetensors",
        architecture=f"{RESULTS}/models/{{model}}/{{method}}/{{seed}}/config.json",
        tokenizer=f"{RESULTS}/models/{{model}}/{{method}}/{{seed}}/tokenizer.json",
        losses=f"{RESULTS}/models/{{model}}/{{method}}/{{seed}}/losses.csv",
        record=f"{RESULTS}/models/{{model}}/{{method}}/{{seed}}/training.json",
    log:
        f"{LOGS}/make_model/{{model}}/{{method}}/{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/make_model/{{model}}/{{method}}/{{seed}}.tsv"
    wildcard_constraints:
        method=names(set(config["methods"]) - {*methods_with("dpo"), *methods_with("decode")}),
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(1440),
        # Processes on the CPU, each of them a thread; on GPUs there is one for each `gpu`. They
        # share every step, so the number changes no result.
        processes=1,
        gpu=0,
    params:
        settings=lambda wildcards: settings_of(
            architecture=architecture_of(wildcards.model),
            training=without(training_of(wildcards.model, wildcards.method), "checkpoint_steps"),
            suppress=(
                without(config["methods"][wildcards.method]["suppress"], "selection")
                if config["methods"][wildcards.method].get("suppress")
                else None
            ),
            names=[seeded_as(wildcards.model), wildcards.method],
            training_seed=int(wildcards.seed),
            seed=SEED,
        ),
        folder=subpath(output.weights, parent=True),
        corpus=lambda wildcards: training_corpus(wildcards.model, wildcards.method),
        tokenizer=subpath(input.tokenizer, parent=True),
        options=training_options,
        launcher=launcher,
        # How often to save changes no weight. A function of `input` is not tracked, so that a
        # finished model stays when this changes.
        checkpoint_steps=lambda wildcards, input: training_of(wildcards.model, wildcards.method)[
            "checkpoint_steps"
        ],
    message:
        "train {wildcards.model} by {wildcards.method}, seed {wildcards.seed}"
    shell:
        "{params.launcher:q} {input.code[0]:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --tokenizer {params.tokenizer:q} {params.options:q}"
        " --checkpoint-steps {params.checkpoint_steps:q} --output {params.folder:q} > {log:q} 2>&1"


rule train_classifier:
    input:
        code=code("train_classifier.py"),
        files=lambda wildcards: source_inputs(
            config["classifiers"][wildcards.classifier]["train"]["sources"],
            f"classifiers.{wildcards.classifier}.train.sources",
        ),
    output:
        tokenizer=f"{RESULTS}/classifiers/{{classifier}}/tokenizer.json",
        architecture=f"{RESULTS}/classifiers/{{classifier}}/config.json",
        quality=f"{RESULTS}/classifiers/{{classifier}}/quality.json",
    log:
        f"{LOGS}/train_classifier/{{classifier}}.log",
    benchmark:
        f"{BENCHMARKS}/train_classifier/{{classifier}}.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        settings=lambda wildcards: settings_of(
            classifier=wildcards.classifier,
            train={
                **config["classifiers"][wildcards.classifier]["train"],
                "sources": [
                    without(source, "files", "hub", "revision")
                    for source in config["classifiers"][wildcards.classifier]["train"]["sources"]
                ],
            },
            seed=SEED,
        ),
        paths=lambda wildcards: source_paths(
            config["classifiers"][wildcards.classifier]["train"]["sources"],
            f"classifiers.{wildcards.classifier}.train.sources",
        ),
        folder=subpath(output.quality, parent=True),
    message:
        "train the {wildcards.classifier} classifier"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --files {params.paths:q}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule adopt_detoxify:
    input:
        code=code("adopt_detoxify.py"),
        weights=lambda wildcards: f"{RESULTS}/fetched/detoxify-{CLASSIFIERS['explicit']['hub']}.json",
        base=lambda wildcards: repository_record(detoxify_base(CLASSIFIERS["explicit"]["hub"])),
    output:
        checkpoint=f"{RESULTS}/classifiers/explicit/model.ckpt",
    log:
        f"{LOGS}/adopt_detoxify.log",
    benchmark:
        f"{BENCHMARKS}/adopt_detoxify.tsv"
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        weights=lambda wildcards: os.path.join(
            config["data_dir"], DOWNLOADS[f"detoxify-{CLASSIFIERS['explicit']['hub']}"]["path"]
        ),
        base=lambda wildcards: repository_directory(detoxify_base(CLASSIFIERS["explicit"]["hub"])),
    message:
        "make the published Detoxify weights load without a network"
    shell:
        "python {input.code[0]:q} --weights {params.weights:q} --base {params.base:q}"
        " --output {output.checkpoint:q} > {log:q} 2>&1"


rule train:
    input:
        [
            f"{RESULTS}/models/{model}/{method}/{seed}/training.json"
            for model, method, seed in TRAINED
        ],
        [f"{RESULTS}/models/{proxy}/none/{PROXY_SEED}/training.json" for proxy in PROXIES],
        [
            f"{RESULTS}/classifiers/{name}/quality.json"
            for name, entry in config["classifiers"].items()
            if "train" in entry
        ],
