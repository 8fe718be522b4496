# Language models, classifiers and reward models.
#
# in:   corpus/, pairs/, the selections and scores that methods need, labelled texts
# out:  corpus/{tokenizer}/toxicity/ and filtered/, models/{model}/{method}/{seed}/, classifiers/,
#       rewards/{reward}/{tokenizer}/; what methods learn from a model: activations/, probes/,
#       own_generations/, prepared/


# A model that is given is taken as it is; what is made from it is trained.
ruleorder: take_model > make_model


rule take_model:
    input:
        meta=lambda w: f"{experiment.corpus_of(w.model)}/meta.json",
        tokenizer=lambda w: layout.tokenizer_file(experiment.tokenizer_of(w.model)),
        given=lambda w: methods.given_files(w.model),
    output:
        [f"{layout.model(method='none')}/{name}" for name in ALL_MODEL_FILES],
    log:
        layout.log("take_model", "model", "seed"),
    benchmark:
        layout.benchmark("take_model", "model", "seed")
    wildcard_constraints:
        model=names(name for name, entry in config["models"].items() if "path" in entry),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        code=code("take_model"),
        script=script("take_model"),
        given=lambda w: config["models"][w.model]["path"],
        corpus=lambda w: experiment.corpus_of(w.model),
        folder=subpath(output[0], parent=True),
    message:
        "take the weights of {wildcards.model} as they are"
    shell:
        "python {params.script:q} --given {params.given:q} --corpus {params.corpus:q}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule make_corpus:
    input:
        corpus=experiment.corpus_files(layout.corpus(), *experiment.columns),
        documents=layout.documents,
        tokenizer=layout.tokenizer_file(),
        given=lambda w: methods.stage_inputs(w.method, ["data"], w.tokenizer),
    output:
        meta=f"{layout.kept_corpus()}/meta.json",
        columns=column_files(layout.kept_corpus(), SHARDS, experiment.columns),
        dropped=f"{layout.kept_corpus()}/dropped.csv",
        record=f"{layout.kept_corpus()}/dropped.json",
    log:
        layout.log("make_corpus", "tokenizer", "method"),
    benchmark:
        layout.benchmark("make_corpus", "tokenizer", "method")
    wildcard_constraints:
        method=names(methods.with_stage("data")),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        code=code("make_corpus", stages=["data"]),
        script=script("make_corpus"),
        settings=lambda w: settings_of(
            steps=methods.stage_options(w.method, "data"), method=w.method
        ),
        given=lambda w: methods.stage_given(w.method, ["data"], w.tokenizer),
        corpus=lambda w: layout.corpus(w.tokenizer),
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output.meta, parent=True),
    message:
        "the corpus of {wildcards.method}, tokens of {wildcards.tokenizer}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --given {params.given:q}"
        " --corpus {params.corpus:q} --documents {input.documents:q}"
        " --tokenizer {params.tokenizer:q} --output {params.folder:q} > {log:q} 2>&1"


rule make_model:
    input:
        corpus=lambda w: methods.training_files(w.model, w.method),
        tokenizer=lambda w: layout.tokenizer_file(experiment.tokenizer_of(w.model)),
        given=lambda w: methods.needed_inputs(w, "train", "edit"),
        start_from=lambda w: methods.start_files(w.model, w.method, w.seed),
        architecture=lambda w: sources.architecture_inputs(w.model),
    output:
        [f"{layout.model()}/{name}" for name in ALL_MODEL_FILES],
    log:
        layout.log("make_model", "model", "method", "seed"),
    benchmark:
        layout.benchmark("make_model", "model", "method", "seed")
    wildcard_constraints:
        method=names(method for method in config["methods"] if methods.makes_model(method)),
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
        code=code("make_model", stages=["train", "edit"]),
        script=script("make_model"),
        settings=lambda w: settings_of(
            **methods.training_settings(w.model, w.method),
            steps=methods.stage_options(w.method, "train", "edit"),
            names=[methods.seeded_as(w.model), w.method],
            training_seed=int(w.seed),
            seed=SEED,
        ),
        given=lambda w: methods.needed_given(w, "train", "edit"),
        folder=subpath(output[0], parent=True),
        corpus=lambda w: (
            ["--corpus", methods.training_corpus(w.model, w.method)]
            if methods.training_files(w.model, w.method)
            else []
        ),
        tokenizer=subpath(input.tokenizer, parent=True),
        start_from=lambda w: (
            ["--start-from", methods.start_directory(w.model, w.method, w.seed)]
            if methods.start_of(w.model, w.method)
            else []
        ),
        launcher=launcher(methods),
        # How often to save changes no weight. A function of `input` is not tracked, so that a
        # finished model stays when this changes.
        checkpoint_steps=lambda w, input: methods.training(w.model, w.method)["checkpoint_steps"],
    message:
        "make {wildcards.model} by {wildcards.method}, seed {wildcards.seed}"
    shell:
        "{params.launcher:q} {params.script:q} --settings {params.settings:q}"
        " --given {params.given:q} {params.corpus:q} --tokenizer {params.tokenizer:q}"
        " {params.start_from:q} --checkpoint-steps {params.checkpoint_steps:q}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule measure_activations:
    input:
        model=lambda w: methods.model_files(w.model, w.method, w.seed),
        texts=layout.texts(),
    output:
        activations=layout.activations(),
    log:
        layout.log("measure_activations", "model", "method", "seed", "texts"),
    benchmark:
        layout.benchmark("measure_activations", "model", "method", "seed", "texts")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=0,
    params:
        code=code("measure_activations"),
        script=script("measure_activations"),
        settings=lambda w: settings_of(max_length=config["texts"][w.texts]["max_length"]),
        model=lambda w: methods.model_directory(w.model, w.method, w.seed),
    message:
        "activations of {wildcards.model}/{wildcards.method} on the texts {wildcards.texts}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --model {params.model:q}"
        " --texts {input.texts:q} --output {output.activations:q} > {log:q} 2>&1"


rule fit_probe:
    input:
        activations=layout.activations(),
    output:
        probe=layout.probe(),
    log:
        layout.log("fit_probe", "model", "method", "seed", "texts"),
    benchmark:
        layout.benchmark("fit_probe", "model", "method", "seed", "texts")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("fit_probe"),
        script=script("fit_probe"),
    message:
        "a probe of the texts {wildcards.texts} in {wildcards.model}/{wildcards.method}"
    shell:
        "python {params.script:q} --activations {input.activations:q} --output {output.probe:q}"
        " > {log:q} 2>&1"


rule sample_own_generations:
    input:
        model=lambda w: methods.model_files(w.model, w.method, w.seed),
        queries=lambda w: [
            layout.queries(name)
            for name in config["own_generations"][w.own_generations]["queries"]
        ],
        judges=lambda w: judges.ready_of(config["own_generations"][w.own_generations]["judges"]),
    output:
        generations=layout.own_generations(),
    log:
        layout.log("sample_own_generations", "model", "method", "seed", "own_generations"),
    benchmark:
        layout.benchmark("sample_own_generations", "model", "method", "seed", "own_generations")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        code=code("sample_own_generations"),
        script=script("sample_own_generations"),
        settings=lambda w: settings_of(
            **methods.own_sampling(w.own_generations),
            judges=judges.given_of(config["own_generations"][w.own_generations]["judges"]),
            seed=SEED,
        ),
        model=lambda w: methods.model_directory(w.model, w.method, w.seed),
        queries=lambda w, input: ["--queries", *input.queries] if input.queries else [],
    message:
        "what {wildcards.model}/{wildcards.method} writes itself: {wildcards.own_generations}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --model {params.model:q}"
        " {params.queries:q} --output {output.generations:q} > {log:q} 2>&1"


rule prepare_decoding:
    input:
        model=lambda w: methods.model_files(w.model, w.method, w.seed),
        given=lambda w: methods.needed_inputs(w, "decode"),
    output:
        prepared=layout.prepared(),
    log:
        layout.log("prepare_decoding", "model", "method", "seed"),
    benchmark:
        layout.benchmark("prepare_decoding", "model", "method", "seed")
    wildcard_constraints:
        method=names(methods.preparing),
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
        gpu=0,
    params:
        code=code("prepare_decoding", stages=["decode"]),
        script=script("prepare_decoding"),
        settings=lambda w: settings_of(
            steps=methods.preparation(w.method),
            names=[w.model, w.method],
            training_seed=int(w.seed),
            seed=SEED,
        ),
        given=lambda w: methods.needed_given(w, "decode"),
        model=lambda w: methods.model_directory(w.model, w.method, w.seed),
    message:
        "what decoding by {wildcards.method} has to fit, for {wildcards.model}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --given {params.given:q}"
        " --model {params.model:q} --output {output.prepared:q} > {log:q} 2>&1"


rule classify_documents:
    input:
        corpus=experiment.corpus_files(layout.corpus(), "tokens", "documents"),
        documents=layout.documents,
        tokenizer=layout.tokenizer_file(),
        judge=lambda w: judges.ready(w.classifier),
        calibration=lambda w: judges.calibration(w.classifier),
    output:
        scores=f"{layout.document_toxicity()}/shard-{{shard}}.npy",
        record=f"{layout.document_toxicity()}/shard-{{shard}}.json",
    log:
        layout.log("classify_documents", "tokenizer", "classifier", "unit", "shard"),
    benchmark:
        layout.benchmark("classify_documents", "tokenizer", "classifier", "unit", "shard")
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
        gpu=0,
    params:
        code=code("classify_documents"),
        script=script("classify_documents"),
        settings=lambda w: settings_of(
            unit=w.unit, shards=SHARDS, classifier=w.classifier, given=judges.given(w.classifier)
        ),
        corpus=lambda w: layout.corpus(w.tokenizer),
        tokenizer=subpath(input.tokenizer, parent=True),
        shard=lambda w: int(w.shard),
        calibration=lambda w, input: (
            ["--calibration", input.calibration] if input.calibration else []
        ),
    message:
        "toxicity of the corpus in the eyes of {wildcards.classifier}, shard {wildcards.shard}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --documents {input.documents:q} --tokenizer {params.tokenizer:q}"
        " {params.calibration:q} --shard {params.shard:q} --output {output.scores:q}"
        " > {log:q} 2>&1"


rule train_classifier:
    input:
        texts=layout.judge_texts(),
    output:
        tokenizer=f"{layout.classifier()}/tokenizer.json",
        architecture=f"{layout.classifier()}/config.json",
        quality=f"{layout.classifier()}/quality.json",
        calibration=layout.calibration(),
    log:
        layout.log("train_classifier", "classifier"),
    benchmark:
        layout.benchmark("train_classifier", "classifier")
    wildcard_constraints:
        classifier=names(judges.trained),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        code=code("train_classifier"),
        script=script("train_classifier"),
        settings=lambda w: settings_of(
            classifier=w.classifier,
            train=without(config["classifiers"][w.classifier]["train"], "sources"),
            seed=SEED,
        ),
        folder=subpath(output.quality, parent=True),
    message:
        "train the {wildcards.classifier} classifier"
    shell:
        "python {params.script:q} --settings {params.settings:q} --texts {input.texts:q}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule adopt_detoxify:
    input:
        weights=lambda w: layout.fetched(judges.published_weights(w.classifier)),
        base=lambda w: sources.record_of(judges.published_base(w.classifier)),
    output:
        checkpoint=f"{layout.classifier()}/model.ckpt",
    log:
        layout.log("adopt_detoxify", "classifier"),
    benchmark:
        layout.benchmark("adopt_detoxify", "classifier")
    wildcard_constraints:
        classifier=names(judges.published),
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("adopt_detoxify"),
        script=script("adopt_detoxify"),
        weights=lambda w: sources.download_path(judges.published_weights(w.classifier)),
        base=lambda w: sources.directory_of(judges.published_base(w.classifier)),
    message:
        "make the published Detoxify weights load without a network"
    shell:
        "python {params.script:q} --weights {params.weights:q} --base {params.base:q}"
        " --output {output.checkpoint:q} > {log:q} 2>&1"


rule train_reward:
    input:
        tokenizer=layout.tokenizer_file(),
        texts=layout.reward_texts(),
    output:
        weights=f"{layout.reward()}/model.safetensors",
        architecture=f"{layout.reward()}/config.json",
        tokenizer=f"{layout.reward()}/tokenizer.json",
        quality=f"{layout.reward()}/quality.json",
    log:
        layout.log("train_reward", "reward", "tokenizer"),
    benchmark:
        layout.benchmark("train_reward", "reward", "tokenizer")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        code=code("train_reward"),
        script=script("train_reward"),
        settings=lambda w: settings_of(
            names=[w.reward, w.tokenizer],
            train=without(config["rewards"][w.reward]["train"], "sources"),
            seed=SEED,
        ),
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output.weights, parent=True),
    message:
        "train the reward model {wildcards.reward} with {wildcards.tokenizer}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --texts {input.texts:q}"
        " --tokenizer {params.tokenizer:q} --output {params.folder:q} > {log:q} 2>&1"


rule train:
    input:
        [f"{layout.model(*map(str, trained))}/training.json" for trained in methods.trained],
        [f"{layout.model(p, 'none', PROXY_SEED)}/training.json" for p in influence.proxies],
        [judges.quality(name) for name in judges.trained],
