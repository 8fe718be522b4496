# Which documents and tokens to suppress, and how well the scores find what is known to be toxic.

SCORES = f"{RESULTS}/influence/{{model}}/{{direction}}/scores/{{attribution}}"
INTERVAL_SETTINGS = {
    "seed": SEED,
    "resamples": config["evaluation"]["ranking_resamples"],
    "level": config["evaluation"]["level"],
}
AS_SCORED = {"pooling": 0.0, "token_weight": "none", "token_weight_power": 1.0, "unmoved": False}


rule select_tokens:
    input:
        code=code("select_tokens.py"),
        corpus=lambda wildcards: corpus_files(
            config["models"][PROXY]["tokenizer"], "tokens", "documents"
        ),
        scores=lambda wildcards: score_files(
            wildcards.direction,
            config["influence"]["selections"][wildcards.selection]["attribution"],
        ),
        records=lambda wildcards: score_files(
            wildcards.direction,
            config["influence"]["selections"][wildcards.selection]["attribution"],
            "json",
        ),
        directions=lambda wildcards: direction_files(wildcards.direction),
    output:
        mask=[
            f"{RESULTS}/influence/{{model}}/{{direction}}/{{selection}}/mask/shard-{shard}.npy"
            for shard in shards(config["corpus"]["shards"])
        ],
        documents=f"{RESULTS}/influence/{{model}}/{{direction}}/{{selection}}/documents.csv",
        record=f"{RESULTS}/influence/{{model}}/{{direction}}/{{selection}}/selection.json",
    log:
        f"{LOGS}/select_tokens/{{model}}/{{direction}}/{{selection}}.log",
    benchmark:
        f"{BENCHMARKS}/select_tokens/{{model}}/{{direction}}/{{selection}}.tsv"
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=lambda wildcards: canonical(
            without(
                config["influence"]["selections"][wildcards.selection], "direction", "attribution"
            )
        ),
        scored=lambda wildcards: scored_with(
            wildcards.direction,
            config["influence"]["selections"][wildcards.selection]["attribution"],
        ),
        corpus=lambda wildcards: corpus_of(PROXY),
        folder=subpath(output.record, parent=True),
    message:
        "select tokens: {wildcards.selection}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --scores {input.scores:q} --directions {input.directions:q} --scored {params.scored:q}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule transfer_mask:
    input:
        code=code("transfer_mask.py"),
        documents=f"{RESULTS}/corpus/documents.jsonl",
        selection=f"{RESULTS}/influence/{{model}}/{{direction}}/{{selection}}/selection.json",
        selected=selection_files(f"{RESULTS}/influence/{{model}}/{{direction}}/{{selection}}"),
        source=corpus_files(config["models"][PROXY]["tokenizer"], "tokens", "documents"),
        target=lambda wildcards: corpus_files(wildcards.tokenizer, "tokens", "documents"),
    output:
        mask=[
            f"{RESULTS}/influence/{{model}}/{{direction}}/{{selection}}/transfer/{{tokenizer}}/mask/shard-{shard}.npy"
            for shard in shards(config["corpus"]["shards"])
        ],
        record=f"{RESULTS}/influence/{{model}}/{{direction}}/{{selection}}/transfer/{{tokenizer}}/selection.json",
    log:
        f"{LOGS}/transfer_mask/{{model}}/{{direction}}/{{selection}}/{{tokenizer}}.log",
    benchmark:
        f"{BENCHMARKS}/transfer_mask/{{model}}/{{direction}}/{{selection}}/{{tokenizer}}.tsv"
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        selection=subpath(input.selection, parent=True),
        source=lambda wildcards: corpus_of(PROXY),
        target=lambda wildcards: f"{RESULTS}/corpus/{wildcards.tokenizer}",
        folder=subpath(output.record, parent=True),
    message:
        "move the selection {wildcards.selection} to the tokens of {wildcards.tokenizer}"
    shell:
        "python {input.code[0]:q} --documents {input.documents:q} --selection {params.selection:q}"
        " --source {params.source:q} --target {params.target:q} --output {params.folder:q}"
        " > {log:q} 2>&1"


rule measure_attribution:
    input:
        code=code("measure_attribution.py"),
        corpus=lambda wildcards: corpus_files(
            config["models"][PROXY]["tokenizer"], "tokens", "documents", "truth"
        ),
        scores=lambda wildcards: score_files(wildcards.direction, wildcards.attribution),
        records=lambda wildcards: score_files(wildcards.direction, wildcards.attribution, "json"),
        directions=lambda wildcards: direction_files(wildcards.direction),
    output:
        metrics=f"{SCORES}/attribution.json",
        curve=f"{SCORES}/precision_recall.csv",
    log:
        f"{LOGS}/measure_attribution/{{model}}/{{direction}}/{{attribution}}.log",
    benchmark:
        f"{BENCHMARKS}/measure_attribution/{{model}}/{{direction}}/{{attribution}}.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        settings=always(ranking=AS_SCORED, **INTERVAL_SETTINGS),
        scored=lambda wildcards: scored_with(wildcards.direction, wildcards.attribution),
        corpus=lambda wildcards: corpus_of(PROXY),
        seed=PROXY_SEED,
        # The name of the ranking in the summary.
        ranking=lambda wildcards: f"{wildcards.direction}/{wildcards.attribution}",
    message:
        "precision and recall of {wildcards.attribution} scores along {wildcards.direction}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --scores {input.scores:q} --directions {input.directions:q} --scored {params.scored:q}"
        " --model {wildcards.model:q} --ranking {params.ranking:q} --training-seed {params.seed:q}"
        " --output {output.metrics:q} --curve {output.curve:q} > {log:q} 2>&1"


use rule measure_attribution as measure_variant with:
    input:
        code=code("measure_attribution.py"),
        corpus=lambda wildcards: corpus_files(
            config["models"][PROXY]["tokenizer"], "tokens", "documents", "truth"
        ),
        scores=lambda wildcards: score_files(wildcards.direction, wildcards.attribution),
        records=lambda wildcards: score_files(wildcards.direction, wildcards.attribution, "json"),
        directions=lambda wildcards: direction_files(wildcards.direction),
    output:
        metrics=f"{SCORES}/{{variant}}/attribution.json",
        curve=f"{SCORES}/{{variant}}/precision_recall.csv",
    log:
        f"{LOGS}/measure_variant/{{model}}/{{direction}}/{{attribution}}/{{variant}}.log",
    benchmark:
        f"{BENCHMARKS}/measure_variant/{{model}}/{{direction}}/{{attribution}}/{{variant}}.tsv"
    params:
        settings=lambda wildcards: settings_of(
            ranking=without(
                config["influence"]["variants"][wildcards.variant], "direction", "attribution"
            ),
            **INTERVAL_SETTINGS,
        ),
        scored=lambda wildcards: scored_with(wildcards.direction, wildcards.attribution),
        corpus=lambda wildcards: corpus_of(PROXY),
        seed=PROXY_SEED,
        ranking=lambda wildcards: wildcards.variant,
    message:
        "precision and recall of the variant {wildcards.variant}"


rule select:
    input:
        [
            f"{selection_folder(selection)}/selection.json"
            for selection in config["influence"]["selections"]
        ],
