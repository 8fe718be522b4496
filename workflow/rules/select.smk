# The selections and their masks.
#
# in:   influence/{model}/{direction}/scores/, corpus/{tokenizer}/
# out:  influence/{model}/{direction}/{selection}/, scores/{attribution}/attribution.json
#
# Which documents and tokens to suppress, and how well the scores find what is known to be toxic.

INTERVAL_SETTINGS = {
    "seed": SEED,
    "resamples": config["evaluation"]["ranking_resamples"],
    "level": config["evaluation"]["level"],
}
AS_SCORED = {
    "pooling": 0.0,
    "pool_over": "token",
    "token_weight": "none",
    "token_weight_power": 1.0,
    "unmoved": False,
}


rule select_tokens:
    input:
        corpus=lambda w: experiment.corpus_files(experiment.corpus_of(PROXY), "tokens", "documents"),
        scores=lambda w: influence.score_files(
            w.direction,
            config["influence"]["selections"][w.selection]["attribution"],
        ),
        records=lambda w: influence.score_files(
            w.direction,
            config["influence"]["selections"][w.selection]["attribution"],
            "json",
        ),
        directions=lambda w: influence.direction_files(w.direction),
        sources=lambda w: layout.documents if influence.decoy_sources(w.selection) else [],
        equal=lambda w: influence.equal_selection_files(w.selection),
    output:
        mask=shard_files(f"{layout.selection()}/mask", SHARDS),
        documents=f"{layout.selection()}/documents.csv",
        decoys=f"{layout.selection()}/decoys.csv",
        record=f"{layout.selection()}/selection.json",
    log:
        layout.log("select_tokens", "model", "direction", "selection"),
    benchmark:
        layout.benchmark("select_tokens", "model", "direction", "selection")
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("select_tokens"),
        script=script("select_tokens"),
        settings=lambda w: settings_of(
            **without(config["influence"]["selections"][w.selection], "direction", "attribution"),
            harmless_sources=influence.decoy_sources(w.selection),
        ),
        documents=lambda w, input: ["--documents", *input.sources] if input.sources else [],
        equal=lambda w, input: ["--tokens-of", *input.equal] if input.equal else [],
        scored=lambda w: influence.scored_with(
            w.direction,
            config["influence"]["selections"][w.selection]["attribution"],
        ),
        corpus=lambda w: experiment.corpus_of(PROXY),
        folder=subpath(output.record, parent=True),
    message:
        "select tokens: {wildcards.selection}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " {params.documents:q} {params.equal:q} --scores {input.scores:q}"
        " --directions {input.directions:q} --scored {params.scored:q} --output {params.folder:q}"
        " > {log:q} 2>&1"


rule random_tokens:
    input:
        corpus=experiment.corpus_files(experiment.corpus_of(PROXY), "tokens", "documents"),
        selection=f"{layout.selection()}/selection.json",
        selected=influence.mask_files(layout.selection()),
    output:
        mask=shard_files(f"{random_mask(layout.selection())}/mask", SHARDS),
        record=f"{random_mask(layout.selection())}/selection.json",
    log:
        layout.log("random_tokens", "model", "direction", "selection"),
    benchmark:
        layout.benchmark("random_tokens", "model", "direction", "selection")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("random_tokens"),
        script=script("random_tokens"),
        settings=always(seed=SEED),
        corpus=lambda w: experiment.corpus_of(PROXY),
        selection=subpath(input.selection, parent=True),
        folder=subpath(output.record, parent=True),
    message:
        "random tokens, as many as {wildcards.selection} has"
    shell:
        "python {params.script:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --selection {params.selection:q} --output {params.folder:q} > {log:q} 2>&1"


rule transfer_mask:
    input:
        documents=layout.documents,
        selection=f"{layout.selection()}/selection.json",
        selected=influence.mask_files(layout.selection()),
        source=experiment.corpus_files(experiment.corpus_of(PROXY), "tokens", "documents"),
        target=lambda w: experiment.corpus_files(layout.corpus(w.tokenizer), "tokens", "documents"),
    output:
        mask=shard_files(f"{moved_mask(layout.selection())}/mask", SHARDS),
        record=f"{moved_mask(layout.selection())}/selection.json",
    log:
        layout.log("transfer_mask", "model", "direction", "selection", "tokenizer"),
    benchmark:
        layout.benchmark("transfer_mask", "model", "direction", "selection", "tokenizer")
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        code=code("transfer_mask"),
        script=script("transfer_mask"),
        selection=subpath(input.selection, parent=True),
        source=lambda w: experiment.corpus_of(PROXY),
        target=lambda w: layout.corpus(w.tokenizer),
        folder=subpath(output.record, parent=True),
    message:
        "move the selection {wildcards.selection} to the tokens of {wildcards.tokenizer}"
    shell:
        "python {params.script:q} --documents {input.documents:q} --selection {params.selection:q}"
        " --source {params.source:q} --target {params.target:q} --output {params.folder:q}"
        " > {log:q} 2>&1"


rule measure_attribution:
    input:
        corpus=lambda w: experiment.corpus_files(
            experiment.corpus_of(PROXY), "tokens", "documents", "truth"
        ),
        scores=lambda w: influence.score_files(w.direction, w.attribution),
        records=lambda w: influence.score_files(w.direction, w.attribution, "json"),
        directions=lambda w: influence.direction_files(w.direction),
    output:
        metrics=f"{layout.scores()}/attribution.json",
        curve=f"{layout.scores()}/precision_recall.csv",
    log:
        layout.log("measure_attribution", "model", "direction", "attribution"),
    benchmark:
        layout.benchmark("measure_attribution", "model", "direction", "attribution")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        code=code("measure_attribution"),
        script=script("measure_attribution"),
        settings=always(ranking=AS_SCORED, **INTERVAL_SETTINGS),
        scored=lambda w: influence.scored_with(w.direction, w.attribution),
        corpus=lambda w: experiment.corpus_of(PROXY),
        seed=PROXY_SEED,
        # The name of the ranking in the summary.
        ranking=lambda w: influence.ranking_name(w.direction, w.attribution),
    message:
        "precision and recall of {wildcards.attribution} scores along {wildcards.direction}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --scores {input.scores:q} --directions {input.directions:q} --scored {params.scored:q}"
        " --model {wildcards.model:q} --ranking {params.ranking:q} --training-seed {params.seed:q}"
        " --output {output.metrics:q} --curve {output.curve:q} > {log:q} 2>&1"


use rule measure_attribution as measure_variant with:
    input:
        corpus=lambda w: experiment.corpus_files(
            experiment.corpus_of(PROXY), "tokens", "documents", "truth"
        ),
        scores=lambda w: influence.score_files(w.direction, w.attribution),
        records=lambda w: influence.score_files(w.direction, w.attribution, "json"),
        directions=lambda w: influence.direction_files(w.direction),
    output:
        metrics=f"{layout.scores()}/{{variant}}/attribution.json",
        curve=f"{layout.scores()}/{{variant}}/precision_recall.csv",
    log:
        layout.log("measure_variant", "model", "direction", "attribution", "variant"),
    benchmark:
        layout.benchmark("measure_variant", "model", "direction", "attribution", "variant")
    params:
        code=code("measure_attribution", made_by="measure_variant"),
        script=script("measure_attribution"),
        settings=lambda w: settings_of(
            ranking=without(
                config["influence"]["variants"][w.variant], "direction", "attribution"
            ),
            **INTERVAL_SETTINGS,
        ),
        scored=lambda w: influence.scored_with(w.direction, w.attribution),
        corpus=lambda w: experiment.corpus_of(PROXY),
        seed=PROXY_SEED,
        ranking=lambda w: w.variant,
    message:
        "precision and recall of the variant {wildcards.variant}"


rule select:
    input:
        [
            f"{influence.selection_folder(selection)}/selection.json"
            for selection in config["influence"]["selections"]
        ],
