# EK-FAC factors, the query direction, and the token scores of the proxy.

FACTOR_SETTINGS = always(
    factors={
        **config["influence"]["factors"],
        "allow_untrained": config["influence"]["allow_untrained"],
    },
    seed=SEED,
)
FACTOR_SHARDS = shards(config["influence"]["factors"]["shards"])


rule sum_covariances:
    input:
        code=code("sum_covariances.py"),
        model=lambda wildcards: model_files(wildcards.model, "none", PROXY_SEED),
        corpus=lambda wildcards: corpus_files(
            config["models"][wildcards.model]["tokenizer"], "tokens", "documents"
        ),
    output:
        sums=f"{RESULTS}/influence/{{model}}/covariances/shard-{{shard}}.safetensors",
    log:
        f"{LOGS}/sum_covariances/{{model}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/sum_covariances/{{model}}/{{shard}}.tsv"
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        settings=FACTOR_SETTINGS,
        model=proxy_directory,
        corpus=lambda wildcards: corpus_of(wildcards.model),
        shard=lambda wildcards: int(wildcards.shard),
    message:
        "covariances of {wildcards.model}, shard {wildcards.shard}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --model {params.model:q}"
        " --corpus {params.corpus:q} --shard {params.shard:q} --output {output.sums:q}"
        " > {log:q} 2>&1"


rule decompose_covariances:
    input:
        code=code("decompose_covariances.py"),
        sums=expand(
            f"{RESULTS}/influence/{{{{model}}}}/covariances/shard-{{shard}}.safetensors",
            shard=FACTOR_SHARDS,
        ),
    output:
        bases=f"{RESULTS}/influence/{{model}}/eigenbases.safetensors",
    log:
        f"{LOGS}/decompose_covariances/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/decompose_covariances/{{model}}.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    message:
        "eigenbases of {wildcards.model}"
    shell:
        "python {input.code[0]:q} --covariances {input.sums:q} --output {output.bases:q}"
        " > {log:q} 2>&1"


rule correct_eigenvalues:
    input:
        code=code("correct_eigenvalues.py"),
        model=lambda wildcards: model_files(wildcards.model, "none", PROXY_SEED),
        corpus=lambda wildcards: corpus_files(
            config["models"][wildcards.model]["tokenizer"], "tokens", "documents"
        ),
        bases=f"{RESULTS}/influence/{{model}}/eigenbases.safetensors",
    output:
        sums=f"{RESULTS}/influence/{{model}}/eigenvalues/shard-{{shard}}.safetensors",
    log:
        f"{LOGS}/correct_eigenvalues/{{model}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/correct_eigenvalues/{{model}}/{{shard}}.tsv"
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        settings=FACTOR_SETTINGS,
        model=proxy_directory,
        corpus=lambda wildcards: corpus_of(wildcards.model),
        shard=lambda wildcards: int(wildcards.shard),
    message:
        "eigenvalue correction of {wildcards.model}, shard {wildcards.shard}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --model {params.model:q}"
        " --corpus {params.corpus:q} --shard {params.shard:q} --eigenbases {input.bases:q}"
        " --output {output.sums:q} > {log:q} 2>&1"


rule merge_factors:
    input:
        code=code("merge_factors.py"),
        bases=f"{RESULTS}/influence/{{model}}/eigenbases.safetensors",
        sums=expand(
            f"{RESULTS}/influence/{{{{model}}}}/eigenvalues/shard-{{shard}}.safetensors",
            shard=FACTOR_SHARDS,
        ),
    output:
        factors=f"{RESULTS}/influence/{{model}}/factors.safetensors",
    log:
        f"{LOGS}/merge_factors/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/merge_factors/{{model}}.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    message:
        "EK-FAC factors of {wildcards.model}"
    shell:
        "python {input.code[0]:q} --eigenbases {input.bases:q} --eigenvalues {input.sums:q}"
        " --output {output.factors:q} > {log:q} 2>&1"


rule measure_query_gradient:
    input:
        code=code("measure_query_gradient.py"),
        model=lambda wildcards: model_files(wildcards.model, "none", PROXY_SEED),
        queries=f"{RESULTS}/queries/{{queries}}.jsonl",
    output:
        gradient=f"{RESULTS}/influence/{{model}}/gradients/{{queries}}.safetensors",
    log:
        f"{LOGS}/measure_query_gradient/{{model}}/{{queries}}.log",
    benchmark:
        f"{BENCHMARKS}/measure_query_gradient/{{model}}/{{queries}}.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        settings=always(
            tokens_per_batch=config["influence"]["query_tokens_per_batch"],
            allow_untrained=config["influence"]["allow_untrained"],
        ),
        model=proxy_directory,
    message:
        "mean gradient of the query records {wildcards.queries}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --model {params.model:q}"
        " --queries {input.queries:q} --output {output.gradient:q} > {log:q} 2>&1"


rule make_direction:
    input:
        code=code("make_direction.py"),
        model=lambda wildcards: model_files(wildcards.model, "none", PROXY_SEED),
        toxic=lambda wildcards: gradient_file(wildcards, "toxic"),
        safe=lambda wildcards: gradient_file(wildcards, "safe"),
        factors=lambda wildcards: (
            []
            if config["influence"]["directions"][wildcards.direction]["hessian"] == "identity"
            else f"{RESULTS}/influence/{wildcards.model}/factors.safetensors"
        ),
    output:
        direction=f"{RESULTS}/influence/{{model}}/{{direction}}/direction.safetensors",
    log:
        f"{LOGS}/make_direction/{{model}}/{{direction}}.log",
    benchmark:
        f"{BENCHMARKS}/make_direction/{{model}}/{{direction}}.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=lambda wildcards: canonical(
            without(
                config["influence"]["directions"][wildcards.direction],
                "toxic",
                "safe",
                "measure",
                "model",
            )
        ),
        model=proxy_directory,
        safe=lambda wildcards, input: ["--safe", input.safe] if input.safe else [],
        factors=lambda wildcards, input: ["--factors", input.factors] if input.factors else [],
    message:
        "query direction {wildcards.direction}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --model {params.model:q}"
        " --toxic {input.toxic:q} {params.safe:q} {params.factors:q}"
        " --output {output.direction:q} > {log:q} 2>&1"


rule score_tokens:
    input:
        code=code("score_tokens.py"),
        model=lambda wildcards: model_files(wildcards.model, "none", PROXY_SEED),
        meta=lambda wildcards: f"{corpus_of(wildcards.model)}/meta.json",
        tokens=lambda wildcards: f"{corpus_of(wildcards.model)}/tokens/shard-{wildcards.shard}.npy",
        documents=lambda wildcards: (
            f"{corpus_of(wildcards.model)}/documents/shard-{wildcards.shard}.npy"
        ),
        direction=f"{RESULTS}/influence/{{model}}/{{direction}}/direction.safetensors",
    output:
        scores=f"{RESULTS}/influence/{{model}}/{{direction}}/scores/{{attribution}}/shard-{{shard}}.npy",
        record=f"{RESULTS}/influence/{{model}}/{{direction}}/scores/{{attribution}}/shard-{{shard}}.json",
    log:
        f"{LOGS}/score_tokens/{{model}}/{{direction}}/{{attribution}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/score_tokens/{{model}}/{{direction}}/{{attribution}}/{{shard}}.tsv"
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
        settings=lambda wildcards: scored_with(wildcards.direction, wildcards.attribution),
        model=proxy_directory,
        corpus=lambda wildcards: corpus_of(wildcards.model),
        shard=lambda wildcards: int(wildcards.shard),
    message:
        "{wildcards.attribution} scores along {wildcards.direction}, shard {wildcards.shard}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --model {params.model:q}"
        " --corpus {params.corpus:q} --direction {input.direction:q} --shard {params.shard:q}"
        " --output {output.scores:q} > {log:q} 2>&1"


rule average_scores:
    input:
        code=code("average_scores.py"),
        corpus=lambda wildcards: corpus_files(
            config["models"][wildcards.model]["tokenizer"], "tokens", "documents"
        ),
        scores=lambda wildcards: [
            path
            for direction in averaged(wildcards.direction)
            for path in score_files(direction, wildcards.attribution)
        ],
        records=lambda wildcards: [
            path
            for direction in averaged(wildcards.direction)
            for path in score_files(direction, wildcards.attribution, "json")
        ],
        directions=lambda wildcards: direction_files(wildcards.direction),
    output:
        scores=[
            f"{RESULTS}/influence/{{model}}/{{direction}}/scores/{{attribution}}/shard-{shard}.npy"
            for shard in shards(config["corpus"]["shards"])
        ],
        records=[
            f"{RESULTS}/influence/{{model}}/{{direction}}/scores/{{attribution}}/shard-{shard}.json"
            for shard in shards(config["corpus"]["shards"])
        ],
    log:
        f"{LOGS}/average_scores/{{model}}/{{direction}}/{{attribution}}.log",
    benchmark:
        f"{BENCHMARKS}/average_scores/{{model}}/{{direction}}/{{attribution}}.tsv"
    wildcard_constraints:
        direction=names(config["influence"]["averages"]),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        settings=lambda wildcards: canonical(config["influence"]["averages"][wildcards.direction]),
        scored=lambda wildcards: scored_with(
            averaged(wildcards.direction)[0], wildcards.attribution
        ),
        corpus=lambda wildcards: corpus_of(wildcards.model),
    message:
        "mean {wildcards.attribution} scores of {wildcards.direction}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --scores {input.scores:q} --directions {input.directions:q} --scored {params.scored:q}"
        " --output {output.scores:q} > {log:q} 2>&1"


rule factors:
    input:
        sorted(
            {
                f"{RESULTS}/influence/{influence_model(direction)}/factors.safetensors"
                for entry, _ in SCORED
                for direction in averaged(entry)
                if config["influence"]["directions"][direction]["hessian"] != "identity"
            }
        ),


rule scores:
    input:
        [score_files(direction, attribution) for direction, attribution in SCORED],
