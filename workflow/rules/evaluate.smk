# Continuations, their toxicity, and fluency, for every evaluated model and method.
#
# in:   models/, prompts/, passages/, corpus/{tokenizer}/held_out/, classifiers/, what decode steps need
# out:  evaluation/{model}/{method}/{seed}/{benchmark}/, removal/{model}/{method}.json

MEASURING = {
    "seed": SEED,
    "resamples": config["evaluation"]["resamples"],
    "level": config["evaluation"]["level"],
}


rule generate_continuations:
    input:
        model=lambda w: methods.model_files(w.model, w.method, w.seed),
        given=methods.decode_inputs,
        prompts=layout.prompts(),
        lengths=layout.prompt_lengths(),
    output:
        continuations=f"{layout.evaluation()}/continuations/shard-{{shard}}.jsonl",
    log:
        layout.log("generate_continuations", "model", "method", "seed", "benchmark", "shard"),
    benchmark:
        layout.benchmark("generate_continuations", "model", "method", "seed", "benchmark", "shard")
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
        gpu=0,
    params:
        code=code("generate_continuations", stages=["decode"]),
        script=script("generate_continuations"),
        settings=lambda w: settings_of(
            generation={
                **without(config["generation"], "shards"),
                **config["benchmarks"][w.benchmark].get("generation", {}),
            },
            shard=[int(w.shard), config["generation"]["shards"]],
            steps=methods.stage_options(w.method, "decode"),
            seed=SEED,
        ),
        model=lambda w: methods.model_directory(w.model, w.method, w.seed),
        given=methods.decode_given,
    message:
        "continuations of {wildcards.benchmark} by {wildcards.model}/{wildcards.method}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --model {params.model:q}"
        " --given {params.given:q} --prompts {input.prompts:q} --output {output.continuations:q} > {log:q} 2>&1"


rule classify_continuations:
    input:
        continuations=shard_files(
            f"{layout.evaluation()}/continuations", config["generation"]["shards"], "jsonl"
        ),
        judges=judges.all_ready(),
    output:
        generations=f"{layout.evaluation()}/generations.jsonl",
    log:
        layout.log("classify_continuations", "model", "method", "seed", "benchmark"),
    benchmark:
        layout.benchmark("classify_continuations", "model", "method", "seed", "benchmark")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        code=code("classify_continuations"),
        script=script("classify_continuations"),
        settings=always(judges=judges.all_given()),
    message:
        "toxicity of {wildcards.model}/{wildcards.method} on {wildcards.benchmark}"
    shell:
        "python {params.script:q} --settings {params.settings:q}"
        " --continuations {input.continuations:q} --output {output.generations:q} > {log:q} 2>&1"


rule measure_continuation_losses:
    input:
        continuations=shard_files(
            f"{layout.evaluation()}/continuations", config["generation"]["shards"], "jsonl"
        ),
        reference=lambda w: methods.model_files(w.model, UNCENSORED, w.seed),
    output:
        losses=layout.continuation_losses(),
    log:
        layout.log("measure_continuation_losses", "model", "method", "seed", "benchmark"),
    benchmark:
        layout.benchmark("measure_continuation_losses", "model", "method", "seed", "benchmark")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=0,
    params:
        code=code("measure_continuation_losses"),
        script=script("measure_continuation_losses"),
        settings=always(continuations=config["evaluation"]["perplexity_continuations"]),
        reference=lambda w: layout.model(w.model, UNCENSORED, w.seed),
    message:
        "continuations of {wildcards.benchmark} by {wildcards.model}/{wildcards.method}, read by the uncensored model"
    shell:
        "python {params.script:q} --settings {params.settings:q}"
        " --continuations {input.continuations:q} --reference {params.reference:q}"
        " --output {output.losses:q} > {log:q} 2>&1"


rule measure_toxicity:
    input:
        generations=f"{layout.evaluation()}/generations.jsonl",
        losses=layout.continuation_losses() if methods.has_reference else [],
        record=lambda w: f"{methods.model_directory(w.model, w.method, w.seed)}/training.json",
    output:
        metrics=f"{layout.evaluation()}/metrics.json",
    log:
        layout.log("measure_toxicity", "model", "method", "seed", "benchmark"),
    benchmark:
        layout.benchmark("measure_toxicity", "model", "method", "seed", "benchmark")
    wildcard_constraints:
        benchmark=names(experiment.benchmarks_of("prompts")),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("measure_toxicity"),
        script=script("measure_toxicity"),
        settings=always(
            judges=list(judges), threshold=config["evaluation"]["threshold"], **MEASURING
        ),
        losses=lambda w, input: ["--losses", input.losses] if input.losses else [],
    message:
        "metrics of {wildcards.model}/{wildcards.method} on {wildcards.benchmark}"
    shell:
        "python {params.script:q} --settings {params.settings:q}"
        " --generations {input.generations:q} {params.losses:q}"
        " --training-record {input.record:q} --benchmark {wildcards.benchmark:q}"
        " --model {wildcards.model:q} --method {wildcards.method:q}"
        " --training-seed {wildcards.seed:q} --output {output.metrics:q} > {log:q} 2>&1"


rule measure_perplexity:
    input:
        model=lambda w: methods.model_files(w.model, w.method, w.seed),
        given=methods.decode_inputs,
        reference=lambda w: methods.reference_files(w.model, w.method, w.seed),
        corpus=lambda w: [
            f"{layout.held_out(experiment.tokenizer_of(w.model))}/meta.json",
            *column_files(
                layout.held_out(experiment.tokenizer_of(w.model)), 1, experiment.columns
            ),
        ],
    output:
        metrics=f"{layout.evaluation()}/metrics.json",
    log:
        layout.log("measure_perplexity", "model", "method", "seed", "benchmark"),
    benchmark:
        layout.benchmark("measure_perplexity", "model", "method", "seed", "benchmark")
    wildcard_constraints:
        benchmark=names(experiment.benchmarks_of("perplexity")),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=0,
    params:
        code=code("measure_perplexity", stages=["decode"]),
        script=script("measure_perplexity"),
        settings=lambda w: settings_of(steps=methods.stage_options(w.method, "decode"), **MEASURING),
        given=methods.decode_given,
        model=lambda w: methods.model_directory(w.model, w.method, w.seed),
        reference=lambda w: methods.reference_option(w.model, w.method, w.seed),
        corpus=lambda w: layout.held_out(experiment.tokenizer_of(w.model)),
    message:
        "held-out perplexity of {wildcards.model}/{wildcards.method}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --given {params.given:q} --model {params.model:q} {params.reference:q}"
        " --benchmark {wildcards.benchmark:q}"
        " --model-name {wildcards.model:q} --method {wildcards.method:q}"
        " --training-seed {wildcards.seed:q} --output {output.metrics:q} > {log:q} 2>&1"


rule measure_lambada:
    input:
        model=lambda w: methods.model_files(w.model, w.method, w.seed),
        given=methods.decode_inputs,
        passages=layout.passages(),
    output:
        metrics=f"{layout.evaluation()}/metrics.json",
    log:
        layout.log("measure_lambada", "model", "method", "seed", "benchmark"),
    benchmark:
        layout.benchmark("measure_lambada", "model", "method", "seed", "benchmark")
    wildcard_constraints:
        benchmark=names(experiment.benchmarks_of("lambada")),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=0,
    params:
        code=code("measure_lambada", stages=["decode"]),
        script=script("measure_lambada"),
        settings=lambda w: settings_of(
            steps=methods.stage_options(w.method, "decode"),
            sampling=(
                {key: config["generation"][key] for key in ("top_p", "temperature")}
                if methods.step_at(w.method, "decode")
                else None
            ),
            **MEASURING,
        ),
        given=methods.decode_given,
        model=lambda w: methods.model_directory(w.model, w.method, w.seed),
    message:
        "last words by {wildcards.model}/{wildcards.method}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --passages {input.passages:q}"
        " --given {params.given:q} --model {params.model:q} --benchmark {wildcards.benchmark:q}"
        " --model-name {wildcards.model:q} --method {wildcards.method:q}"
        " --training-seed {wildcards.seed:q} --output {output.metrics:q} > {log:q} 2>&1"


rule measure_removal:
    input:
        corpus=lambda w: experiment.corpus_files(experiment.corpus_of(w.model), *experiment.columns),
        removed=lambda w: methods.removal_inputs(w.model, w.method),
    output:
        metrics=layout.removal(),
    log:
        layout.log("measure_removal", "model", "method"),
    benchmark:
        layout.benchmark("measure_removal", "model", "method")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("measure_removal"),
        script=script("measure_removal"),
        corpus=lambda w: experiment.corpus_of(w.model),
        options=lambda w: methods.removal_options(w.model, w.method),
        seed=PROXY_SEED,
    message:
        "what {wildcards.method} keeps from {wildcards.model}"
    shell:
        "python {params.script:q} --corpus {params.corpus:q} {params.options:q}"
        " --model {wildcards.model:q} --method {wildcards.method:q}"
        " --training-seed {params.seed:q} --output {output.metrics:q} > {log:q} 2>&1"


rule measure_erasure:
    input:
        corpus=lambda w: experiment.corpus_files(experiment.corpus_of(w.model), *experiment.columns),
        selected=lambda w: [
            path
            for method in methods.suppressing
            for path in methods.removal_inputs(w.model, method)
        ],
        before=lambda w: methods.model_files(w.model, "none", PROXY_SEED),
        after=lambda w: [
            path
            for method in methods.suppressing
            for path in methods.model_files(w.model, method, PROXY_SEED)
        ],
    output:
        phrases=layout.erasure(),
    log:
        layout.log("measure_erasure", "model"),
    benchmark:
        layout.benchmark("measure_erasure", "model")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=0,
    params:
        code=code("measure_erasure"),
        script=script("measure_erasure"),
        settings=always(phrases=30, occurrences=10, seed=SEED),
        corpus=lambda w: experiment.corpus_of(w.model),
        before=lambda w: methods.model_directory(w.model, "none", PROXY_SEED),
        masks=lambda w: [
            f"{method}={methods.training_mask_folder(w.model, method)}"
            for method in methods.suppressing
        ],
        after=lambda w: [
            f"{method}={methods.model_directory(w.model, method, PROXY_SEED)}"
            for method in methods.suppressing
        ],
    message:
        "harmless phrases that masks erase from {wildcards.model}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --masks {params.masks:q} --before {params.before:q} --after {params.after:q}"
        " --output {output.phrases:q} > {log:q} 2>&1"


rule detoxify:
    input:
        [
            f"{layout.evaluation(model, method, seed, benchmark)}/generations.jsonl"
            for model, method, seed in methods.evaluated
            for benchmark in experiment.benchmarks_of("prompts")
            if methods.is_measured_on(method, benchmark)
        ],


rule evaluate:
    input:
        methods.metrics,
