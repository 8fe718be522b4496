# Methods that change the training data or the mask: filters, random tokens, and what each method
# keeps from the model.


rule classify_documents:
    input:
        code=code("classify_documents.py"),
        corpus=lambda wildcards: corpus_files(wildcards.tokenizer, "tokens", "documents"),
        documents=f"{RESULTS}/corpus/documents.jsonl",
        tokenizer=f"{RESULTS}/corpus/{{tokenizer}}/tokenizer/tokenizer.json",
        explicit=EXPLICIT_READY,
    output:
        scores=f"{TOXICITY_SCORES}.npy",
        record=f"{TOXICITY_SCORES}.json",
    log:
        f"{LOGS}/classify_documents/{{tokenizer}}/{{unit}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/classify_documents/{{tokenizer}}/{{unit}}/{{shard}}.tsv"
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
            unit=wildcards.unit,
            shards=config["corpus"]["shards"],
        ),
        corpus=lambda wildcards: f"{RESULTS}/corpus/{wildcards.tokenizer}",
        tokenizer=subpath(input.tokenizer, parent=True),
        shard=lambda wildcards: int(wildcards.shard),
        explicit=lambda wildcards: EXPLICIT_CHECKPOINT,
    message:
        "toxicity of the corpus by {wildcards.unit}, shard {wildcards.shard}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --documents {input.documents:q} --tokenizer {params.tokenizer:q}"
        " --explicit {params.explicit:q} --shard {params.shard:q} --output {output.scores:q} > {log:q} 2>&1"


rule make_corpus:
    input:
        code=code("filter_documents.py"),
        corpus=lambda wildcards: corpus_files(
            wildcards.tokenizer, *(["tokens", "documents"] + (["truth"] if HAS_TRUTH else []))
        ),
        documents=f"{RESULTS}/corpus/documents.jsonl",
        tokenizer=f"{RESULTS}/corpus/{{tokenizer}}/tokenizer/tokenizer.json",
        reasons=filter_inputs,
    output:
        meta=f"{RESULTS}/corpus/{{tokenizer}}/filtered/{{method}}/meta.json",
        columns=[
            f"{RESULTS}/corpus/{{tokenizer}}/filtered/{{method}}/{column}/shard-{shard}.npy"
            for column in ["tokens", "documents"] + (["truth"] if HAS_TRUTH else [])
            for shard in shards(config["corpus"]["shards"])
        ],
        dropped=f"{RESULTS}/corpus/{{tokenizer}}/filtered/{{method}}/dropped.csv",
        record=f"{RESULTS}/corpus/{{tokenizer}}/filtered/{{method}}/filter.json",
    log:
        f"{LOGS}/make_corpus/{{tokenizer}}/{{method}}.log",
    benchmark:
        f"{BENCHMARKS}/make_corpus/{{tokenizer}}/{{method}}.tsv"
    wildcard_constraints:
        method=names(FILTERED),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        settings=lambda wildcards: settings_of(
            filter=without(FILTERED[wildcards.method], "words", "classifier", "selection"),
            method=wildcards.method,
        ),
        corpus=lambda wildcards: f"{RESULTS}/corpus/{wildcards.tokenizer}",
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output.meta, parent=True),
        options=filter_options,
    message:
        "filter the corpus: {wildcards.method}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --documents {input.documents:q} --tokenizer {params.tokenizer:q} {params.options:q}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule random_tokens:
    input:
        code=code("random_tokens.py"),
        corpus=lambda wildcards: corpus_files(
            config["models"][PROXY]["tokenizer"], "tokens", "documents"
        ),
        selection=f"{RESULTS}/influence/{{model}}/{{direction}}/{{selection}}/selection.json",
        selected=selection_files(f"{RESULTS}/influence/{{model}}/{{direction}}/{{selection}}"),
    output:
        mask=[
            f"{RESULTS}/influence/{{model}}/{{direction}}/{{selection}}/random/mask/shard-{shard}.npy"
            for shard in shards(config["corpus"]["shards"])
        ],
        record=f"{RESULTS}/influence/{{model}}/{{direction}}/{{selection}}/random/selection.json",
    log:
        f"{LOGS}/random_tokens/{{model}}/{{direction}}/{{selection}}.log",
    benchmark:
        f"{BENCHMARKS}/random_tokens/{{model}}/{{direction}}/{{selection}}.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=always(seed=SEED),
        corpus=lambda wildcards: corpus_of(PROXY),
        selection=subpath(input.selection, parent=True),
        folder=subpath(output.record, parent=True),
    message:
        "random tokens, as many as {wildcards.selection} has"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --selection {params.selection:q} --output {params.folder:q} > {log:q} 2>&1"


rule measure_removal:
    input:
        code=code("measure_removal.py"),
        corpus=lambda wildcards: corpus_files(
            config["models"][wildcards.model]["tokenizer"],
            *(["tokens", "documents"] + (["truth"] if HAS_TRUTH else [])),
        ),
        removed=removal_inputs,
    output:
        metrics=f"{RESULTS}/removal/{{model}}/{{method}}.json",
    log:
        f"{LOGS}/measure_removal/{{model}}/{{method}}.log",
    benchmark:
        f"{BENCHMARKS}/measure_removal/{{model}}/{{method}}.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        corpus=lambda wildcards: corpus_of(wildcards.model),
        options=removal_options,
        seed=PROXY_SEED,
    message:
        "what {wildcards.method} keeps from {wildcards.model}"
    shell:
        "python {input.code[0]:q} --corpus {params.corpus:q} {params.options:q}"
        " --model {wildcards.model:q} --method {wildcards.method:q}"
        " --training-seed {params.seed:q} --output {output.metrics:q} > {log:q} 2>&1"


REMOVAL_METRICS = [
    f"{RESULTS}/removal/{model}/{method}.json"
    for model in config["evaluation"]["models"]
    for method in config["evaluation"]["methods"]
    if {"filter", "suppress"} & set(config["methods"][method])
]
