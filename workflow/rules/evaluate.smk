# Continuations, their toxicity, and fluency, for every evaluated model and method.
#
# in:   models/, prompts/, passages/, corpus/{tokenizer}/held_out/, classifiers/, what decode steps need
# out:  evaluation/{model}/{method}/{seed}/{benchmark}/, removal/{model}/{method}.json, judges/

# One job measures all benchmarks of its kind, so that a model is loaded once. What was made from the same
# before is kept (scripts/ifguide/files/kept.py): `update` leaves it there when the job runs again.


rule generate_continuations:
    input:
        model=lambda w: methods.model_files(w.model, w.method, w.seed),
        given=methods.decode_inputs,
        prompts=[layout.prompts(name) for name in evaluation.prompts],
        lengths=layout.prompt_lengths(evaluation.prompts),
    output:
        continuations=update(
            layout.evaluations(evaluation.prompts, "continuations/shard-{shard}.jsonl")
        ),
    log:
        layout.log("generate_continuations", "model", "method", "seed", "shard"),
    benchmark:
        layout.benchmark("generate_continuations", "model", "method", "seed", "shard")
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
            benchmarks=evaluation.generation(),
            shard=[int(w.shard), config["generation"]["shards"]],
            steps=methods.stage_options(w.method, "decode"),
            seed=SEED,
        ),
        benchmarks=evaluation.prompts,
        model=lambda w: methods.model_directory(w.model, w.method, w.seed),
        given=methods.decode_given,
    message:
        "continuations by {wildcards.model}/{wildcards.method}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --code {params.code:q}"
        " --benchmarks {params.benchmarks:q} --prompts {input.prompts:q}"
        " --model {params.model:q} --given {params.given:q}"
        " --output {output.continuations:q} > {log:q} 2>&1"


rule classify_continuations:
    input:
        continuations=evaluation.continuations(*evaluation.prompts),
        judges=judges.ready_of(judges),
    output:
        generations=update(layout.evaluations(evaluation.prompts, "generations.jsonl")),
    log:
        layout.log("classify_continuations", "model", "method", "seed"),
    benchmark:
        layout.benchmark("classify_continuations", "model", "method", "seed")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(6000),
        runtime=growing(480),
        gpu=0,
    params:
        code=code("classify_continuations"),
        script=script("classify_continuations"),
        settings=always(judges=judges.given_of(judges)),
        benchmarks=evaluation.prompts,
    message:
        "toxicity of continuations by {wildcards.model}/{wildcards.method}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --code {params.code:q}"
        " --benchmarks {params.benchmarks:q} --continuations {input.continuations:q}"
        " --output {output.generations:q} > {log:q} 2>&1"


rule measure_judges:
    input:
        judges=judges.ready_of(judges),
    output:
        table=layout.shown("judges/functional_tests.csv"),
        cases=layout.shown("judges/functional_cases.jsonl"),
    log:
        layout.shown_log("measure_judges"),
    benchmark:
        layout.shown_benchmark("measure_judges")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(6000),
        runtime=growing(60),
    params:
        code=code("measure_judges"),
        script=script("measure_judges"),
        settings=always(
            judges=judges.given_of(judges),
            language=judges.language,
            cases=36,
            threshold=config["evaluation"]["threshold"],
            level=config["evaluation"]["level"],
            seed=SEED,
        ),
    message:
        "functional tests of the judges"
    shell:
        "python {params.script:q} --settings {params.settings:q} --cases {output.cases:q}"
        " --output {output.table:q} > {log:q} 2>&1"


rule measure_toxicity:
    input:
        generations=layout.evaluations(evaluation.prompts, "generations.jsonl"),
        losses=evaluation.losses(),
        record=lambda w: f"{methods.model_directory(w.model, w.method, w.seed)}/training.json",
    output:
        metrics=update(layout.evaluations(evaluation.prompts, "metrics.json")),
    log:
        layout.log("measure_toxicity", "model", "method", "seed"),
    benchmark:
        layout.benchmark("measure_toxicity", "model", "method", "seed")
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
            judges=list(judges),
            threshold=config["evaluation"]["threshold"],
            seed=SEED,
            resamples=config["evaluation"]["resamples"],
            level=config["evaluation"]["level"],
        ),
        benchmarks=evaluation.prompts,
        losses=lambda w, input: ["--losses", *input.losses] if input.losses else [],
    message:
        "metrics of continuations by {wildcards.model}/{wildcards.method}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --code {params.code:q}"
        " --benchmarks {params.benchmarks:q} --generations {input.generations:q}"
        " {params.losses:q} --training-record {input.record:q} --model {wildcards.model:q}"
        " --method {wildcards.method:q} --training-seed {wildcards.seed:q}"
        " --output {output.metrics:q} > {log:q} 2>&1"


rule measure_fluency:
    input:
        model=lambda w: methods.model_files(w.model, w.method, w.seed),
        given=methods.decode_inputs,
        texts=evaluation.fluency_inputs,
    output:
        measured=update(evaluation.fluency_outputs()),
    log:
        layout.log("measure_fluency", "model", "method", "seed"),
    benchmark:
        layout.benchmark("measure_fluency", "model", "method", "seed")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        code=code("measure_fluency", stages=["decode"]),
        script=script("measure_fluency"),
        settings=lambda w: evaluation.fluency_settings(w.method),
        benchmarks=evaluation.fluency,
        given=methods.decode_given,
        model=lambda w: methods.model_directory(w.model, w.method, w.seed),
        options=evaluation.fluency_options,
    message:
        "fluency of {wildcards.model}/{wildcards.method}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --code {params.code:q}"
        " --benchmarks {params.benchmarks:q} --given {params.given:q}"
        " --model {params.model:q} {params.options:q} --model-name {wildcards.model:q}"
        " --method {wildcards.method:q} --training-seed {wildcards.seed:q}"
        " --output {output.measured:q} > {log:q} 2>&1"


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
