# EK-FAC factors, the query direction, the token scores of the proxy, and those of rivals.
#
# in:   models/{model}/none/, corpus/{tokenizer}/, queries/
# out:  influence/{model}/factors.safetensors, {direction}/direction.safetensors, {direction}/scores/,
#       {rival}/rival.safetensors, {rival}/scores/

FACTOR_SETTINGS = always(
    factors={
        **config["influence"]["factors"],
        "allow_untrained": config["influence"]["allow_untrained"],
    },
    seed=SEED,
)
FACTOR_SHARDS = config["influence"]["factors"]["shards"]


rule sum_covariances:
    input:
        model=lambda w: methods.model_files(w.model, "none", PROXY_SEED),
        corpus=lambda w: experiment.corpus_files(
            experiment.corpus_of(w.model), "tokens", "documents"
        ),
    output:
        sums=f"{layout.influence()}/covariances/shard-{{shard}}.safetensors",
    log:
        layout.log("sum_covariances", "model", "shard"),
    benchmark:
        layout.benchmark("sum_covariances", "model", "shard")
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        code=code("sum_covariances"),
        script=script("sum_covariances"),
        settings=FACTOR_SETTINGS,
        model=lambda w: layout.model(w.model, "none", PROXY_SEED),
        corpus=lambda w: experiment.corpus_of(w.model),
        shard=lambda w: int(w.shard),
    message:
        "covariances of {wildcards.model}, shard {wildcards.shard}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --model {params.model:q}"
        " --corpus {params.corpus:q} --shard {params.shard:q} --output {output.sums:q}"
        " > {log:q} 2>&1"


rule decompose_covariances:
    input:
        sums=shard_files(f"{layout.influence()}/covariances", FACTOR_SHARDS, "safetensors"),
    output:
        bases=f"{layout.influence()}/eigenbases.safetensors",
    log:
        layout.log("decompose_covariances", "model"),
    benchmark:
        layout.benchmark("decompose_covariances", "model")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        code=code("decompose_covariances"),
        script=script("decompose_covariances"),
    message:
        "eigenbases of {wildcards.model}"
    shell:
        "python {params.script:q} --covariances {input.sums:q} --output {output.bases:q}"
        " > {log:q} 2>&1"


rule correct_eigenvalues:
    input:
        model=lambda w: methods.model_files(w.model, "none", PROXY_SEED),
        corpus=lambda w: experiment.corpus_files(
            experiment.corpus_of(w.model), "tokens", "documents"
        ),
        bases=f"{layout.influence()}/eigenbases.safetensors",
    output:
        sums=f"{layout.influence()}/eigenvalues/shard-{{shard}}.safetensors",
    log:
        layout.log("correct_eigenvalues", "model", "shard"),
    benchmark:
        layout.benchmark("correct_eigenvalues", "model", "shard")
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        code=code("correct_eigenvalues"),
        script=script("correct_eigenvalues"),
        settings=FACTOR_SETTINGS,
        model=lambda w: layout.model(w.model, "none", PROXY_SEED),
        corpus=lambda w: experiment.corpus_of(w.model),
        shard=lambda w: int(w.shard),
    message:
        "eigenvalue correction of {wildcards.model}, shard {wildcards.shard}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --model {params.model:q}"
        " --corpus {params.corpus:q} --shard {params.shard:q} --eigenbases {input.bases:q}"
        " --output {output.sums:q} > {log:q} 2>&1"


rule merge_factors:
    input:
        bases=f"{layout.influence()}/eigenbases.safetensors",
        sums=shard_files(f"{layout.influence()}/eigenvalues", FACTOR_SHARDS, "safetensors"),
    output:
        factors=layout.factors(),
    log:
        layout.log("merge_factors", "model"),
    benchmark:
        layout.benchmark("merge_factors", "model")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("merge_factors"),
        script=script("merge_factors"),
    message:
        "EK-FAC factors of {wildcards.model}"
    shell:
        "python {params.script:q} --eigenbases {input.bases:q} --eigenvalues {input.sums:q}"
        " --output {output.factors:q} > {log:q} 2>&1"


rule measure_query_gradient:
    input:
        model=lambda w: methods.model_files(w.model, "none", PROXY_SEED),
        queries=lambda w: influence.query_inputs(w.model, w.queries),
    output:
        gradient=layout.gradient(),
    log:
        layout.log("measure_query_gradient", "model", "queries"),
    benchmark:
        layout.benchmark("measure_query_gradient", "model", "queries")
    wildcard_constraints:
        queries=names(config["queries"], config["own_generations"]),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        code=code("measure_query_gradient"),
        script=script("measure_query_gradient"),
        settings=always(
            tokens_per_batch=config["influence"]["query_tokens_per_batch"],
            allow_untrained=config["influence"]["allow_untrained"],
        ),
        model=lambda w: layout.model(w.model, "none", PROXY_SEED),
        kind=lambda w: (
            "--own-generations" if w.queries in config["own_generations"] else "--queries"
        ),
    message:
        "mean gradient of the query records {wildcards.queries}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --model {params.model:q}"
        " {params.kind:q} {input.queries:q} --output {output.gradient:q} > {log:q} 2>&1"


rule make_direction:
    input:
        model=lambda w: methods.model_files(w.model, "none", PROXY_SEED),
        toxic=lambda w: influence.gradient_file(w.model, w.direction, "toxic"),
        safe=lambda w: influence.gradient_file(w.model, w.direction, "safe"),
        factors=lambda w: (
            []
            if config["influence"]["directions"][w.direction]["hessian"] == "identity"
            else layout.factors(w.model)
        ),
    output:
        direction=layout.direction_file(),
    log:
        layout.log("make_direction", "model", "direction"),
    benchmark:
        layout.benchmark("make_direction", "model", "direction")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("make_direction"),
        script=script("make_direction"),
        settings=lambda w: settings_of(
            **without(
                config["influence"]["directions"][w.direction],
                "toxic",
                "safe",
                "measure",
                "model",
            )
        ),
        model=lambda w: layout.model(w.model, "none", PROXY_SEED),
        safe=lambda w, input: ["--safe", input.safe] if input.safe else [],
        factors=lambda w, input: ["--factors", input.factors] if input.factors else [],
    message:
        "query direction {wildcards.direction}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --model {params.model:q}"
        " --toxic {input.toxic:q} {params.safe:q} {params.factors:q}"
        " --output {output.direction:q} > {log:q} 2>&1"


rule score_tokens:
    input:
        model=lambda w: methods.model_files(w.model, "none", PROXY_SEED),
        meta=lambda w: f"{experiment.corpus_of(w.model)}/meta.json",
        tokens=lambda w: f"{experiment.corpus_of(w.model)}/tokens/shard-{w.shard}.npy",
        documents=lambda w: (f"{experiment.corpus_of(w.model)}/documents/shard-{w.shard}.npy"),
        direction=layout.direction_file(),
    output:
        scores=f"{layout.scores()}/shard-{{shard}}.npy",
        record=f"{layout.scores()}/shard-{{shard}}.json",
    log:
        layout.log("score_tokens", "model", "direction", "attribution", "shard"),
    benchmark:
        layout.benchmark("score_tokens", "model", "direction", "attribution", "shard")
    wildcard_constraints:
        direction=names(config["influence"]["directions"]),
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
        gpu=0,
    params:
        code=code("score_tokens"),
        script=script("score_tokens"),
        settings=lambda w: influence.scored_with(w.direction, w.attribution),
        model=lambda w: layout.model(w.model, "none", PROXY_SEED),
        corpus=lambda w: experiment.corpus_of(w.model),
        shard=lambda w: int(w.shard),
    message:
        "{wildcards.attribution} scores along {wildcards.direction}, shard {wildcards.shard}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --model {params.model:q}"
        " --corpus {params.corpus:q} --direction {input.direction:q} --shard {params.shard:q}"
        " --output {output.scores:q} > {log:q} 2>&1"


rule average_scores:
    input:
        corpus=lambda w: experiment.corpus_files(
            experiment.corpus_of(w.model), "tokens", "documents"
        ),
        scores=lambda w: [
            path
            for direction in influence.averaged(w.direction)
            for path in influence.score_files(direction, w.attribution)
        ],
        records=lambda w: [
            path
            for direction in influence.averaged(w.direction)
            for path in influence.score_files(direction, w.attribution, "json")
        ],
        directions=lambda w: influence.direction_files(w.direction),
    output:
        scores=shard_files(layout.scores(), SHARDS),
        records=shard_files(layout.scores(), SHARDS, "json"),
    log:
        layout.log("average_scores", "model", "direction", "attribution"),
    benchmark:
        layout.benchmark("average_scores", "model", "direction", "attribution")
    wildcard_constraints:
        direction=names(config["influence"]["averages"]),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        code=code("average_scores"),
        script=script("average_scores"),
        settings=lambda w: settings_of(**config["influence"]["averages"][w.direction]),
        scored=lambda w: influence.scored_with(influence.averaged(w.direction)[0], w.attribution),
        corpus=lambda w: experiment.corpus_of(w.model),
    message:
        "mean {wildcards.attribution} scores of {wildcards.direction}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --scores {input.scores:q} --directions {input.directions:q} --scored {params.scored:q}"
        " --output {output.scores:q} > {log:q} 2>&1"


rule score_rival:
    input:
        corpus=lambda w: experiment.corpus_files(
            experiment.corpus_of(w.model), "tokens", "documents"
        ),
        tokenizer=lambda w: layout.tokenizer_file(experiment.tokenizer_of(w.model)),
        given=lambda w: rivals.inputs(w.direction),
    output:
        rival=layout.rival_file(),
        scores=shard_files(layout.scores(attribution="loss"), SHARDS),
        records=shard_files(layout.scores(attribution="loss"), SHARDS, "json"),
    log:
        layout.log("score_rival", "model", "direction"),
    benchmark:
        layout.benchmark("score_rival", "model", "direction")
    wildcard_constraints:
        direction=names(config["influence"]["rivals"]),
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
        gpu=0,
    params:
        code=code("score_rival"),
        script=script("score_rival"),
        settings=lambda w: influence.scored_with(w.direction, "loss"),
        given=lambda w: rivals.given(w.direction),
        corpus=lambda w: experiment.corpus_of(w.model),
    message:
        "scores by the rival {wildcards.direction}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --given {params.given:q} --rival {output.rival:q} --output {output.scores:q}"
        " > {log:q} 2>&1"


rule factors:
    input:
        sorted(
            {
                layout.factors(influence.model_of(direction))
                for entry, _ in influence.scored
                for direction in influence.averaged(entry)
                if config["influence"]["directions"][direction]["hessian"] != "identity"
            }
        ),


rule scores:
    input:
        [
            influence.score_files(direction, attribution)
            for direction, attribution in influence.scored
        ],
