# From files to tokens.
#
# in:   the files that the config names, downloads, repositories of the hub
# out:  fetched/, planted/, corpus/{tokenizer}/, queries/, prompts/, passages/, pairs/


rule fetch_file:
    output:
        # The file itself is not an output: a failed job must never delete a user's data.
        record=layout.fetched(),
    log:
        layout.log("fetch_file", "download"),
    benchmark:
        layout.benchmark("fetch_file", "download")
    # First of all: what cannot be fetched shall be known before hours of work.
    priority: 200
    retries: 2
    # Compute nodes often have no network.
    localrule: True
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(500),
        runtime=growing(60),
    params:
        code=code("fetch_file"),
        script=script("fetch_file"),
        settings=lambda w: settings_of(**without(sources.downloads[w.download], "path")),
        path=lambda w: sources.download_path(w.download),
    message:
        "fetch {wildcards.download}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --path {params.path:q}"
        " --output {output.record:q} > {log:q} 2>&1"


rule fetch_repository:
    output:
        # Here too the files themselves are no output.
        record=layout.fetched_repository(),
    log:
        layout.log("fetch_repository", "repository"),
    benchmark:
        layout.benchmark("fetch_repository", "repository")
    priority: 200
    retries: 2
    localrule: True
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(600),
    params:
        code=code("fetch_repository"),
        script=script("fetch_repository"),
        settings=lambda w: settings_of(**vars(sources.repositories[w.repository][0])),
        directory=lambda w: sources.directory_of(sources.repositories[w.repository][0]),
        # Advice for the error message changes no result: with `input` it is not tracked.
        instead=lambda w, input: sources.repositories[w.repository][1],
    message:
        "fetch {wildcards.repository} from the hub"
    shell:
        'HF_HUB_OFFLINE="$FETCH_HUB_OFFLINE" python {params.script:q} --settings {params.settings:q}'
        " --directory {params.directory:q} --instead {params.instead:q}"
        " --output {output.record:q} > {log:q} 2>&1"


rule plant:
    output:
        [f"{layout.planted}/{name}" for name in PLANTED_FILES],
    log:
        layout.log("plant"),
    benchmark:
        layout.benchmark("plant")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(20),
    params:
        code=code("plant"),
        script=script("plant"),
        settings=always(planted=config.get("planted", {}), seed=SEED),
        folder=subpath(output[0], parent=True),
    message:
        "generate the planted corpus"
    shell:
        "python {params.script:q} --settings {params.settings:q} --output-dir {params.folder:q}"
        " > {log:q} 2>&1"


rule read_documents:
    input:
        files=sources.source_inputs(config["corpus"]["sources"], "corpus.sources"),
        prompts=experiment.dropped_prompts,
    output:
        training=layout.documents,
        held_out=layout.held_out_documents,
        report=layout.documents_report,
    log:
        layout.log("read_documents"),
    benchmark:
        layout.benchmark("read_documents")
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(600),
    params:
        code=code("read_documents"),
        script=script("read_documents"),
        settings=always(
            sources=[
                without(source, "files", "hub", "revision")
                for source in config["corpus"]["sources"]
            ],
            overlap=experiment.dropped_overlap,
            seed=SEED,
        ),
        files=lambda w: sources.source_arguments(config["corpus"]["sources"], "corpus.sources"),
        prompts=lambda w, input: ["--prompts", *input.prompts] if input.prompts else [],
    message:
        "read the corpus"
    shell:
        "python {params.script:q} --settings {params.settings:q} --files {params.files:q}"
        " {params.prompts:q} --training {output.training:q} --held-out {output.held_out:q}"
        " --report {output.report:q} > {log:q} 2>&1"


rule make_tokenizer:
    input:
        documents=layout.documents,
        source=lambda w: sources.tokenizer_input(w.tokenizer),
    output:
        tokenizer=layout.tokenizer_file(),
        settings=f"{layout.corpus()}/tokenizer/tokenizer_config.json",
    log:
        layout.log("make_tokenizer", "tokenizer"),
    benchmark:
        layout.benchmark("make_tokenizer", "tokenizer")
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        code=code("make_tokenizer"),
        script=script("make_tokenizer"),
        settings=lambda w: settings_of(**sources.tokenizer(w.tokenizer)),
        folder=subpath(output.tokenizer, parent=True),
    message:
        "tokenizer {wildcards.tokenizer}"
    shell:
        "python {params.script:q} --settings {params.settings:q}"
        " --documents {input.documents:q} --output {params.folder:q} > {log:q} 2>&1"


rule tokenize_part:
    input:
        documents=layout.documents,
        tokenizer=layout.tokenizer_file(),
    output:
        part=f"{layout.token_parts()}/shard-{{shard}}.npy",
        record=f"{layout.token_parts()}/shard-{{shard}}.json",
    log:
        layout.log("tokenize_part", "tokenizer", "shard"),
    benchmark:
        layout.benchmark("tokenize_part", "tokenizer", "shard")
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        code=code("tokenize_part"),
        script=script("tokenize_part"),
        settings=lambda w: settings_of(shard=[int(w.shard), SHARDS]),
        tokenizer=subpath(input.tokenizer, parent=True),
    message:
        "tokenize part {wildcards.shard} of the corpus with {wildcards.tokenizer}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --documents {input.documents:q}"
        " --tokenizer {params.tokenizer:q} --output {output.part:q} > {log:q} 2>&1"


rule tokenize_documents:
    input:
        documents=layout.documents,
        tokenizer=layout.tokenizer_file(),
        # A corpus of a single shard is tokenized at once.
        parts=shard_files(layout.token_parts(), SHARDS) if SHARDS > 1 else [],
        records=shard_files(layout.token_parts(), SHARDS, "json") if SHARDS > 1 else [],
    output:
        meta=f"{layout.corpus()}/meta.json",
        columns=column_files(layout.corpus(), SHARDS, experiment.columns),
    log:
        layout.log("tokenize_documents", "tokenizer"),
    benchmark:
        layout.benchmark("tokenize_documents", "tokenizer")
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(600),
    params:
        code=code("tokenize_documents"),
        script=script("tokenize_documents"),
        settings=always(
            block_size=config["corpus"]["block_size"],
            shards=SHARDS,
            truth=experiment.has_truth,
        ),
        folder=subpath(output.meta, parent=True),
        tokenizer=subpath(input.tokenizer, parent=True),
        parts=lambda w, input: ["--parts", *input.parts] if input.parts else [],
    message:
        "pack the corpus, tokenized with {wildcards.tokenizer}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --documents {input.documents:q}"
        " {params.parts:q} --tokenizer {params.tokenizer:q} --output {params.folder:q}"
        " > {log:q} 2>&1"


use rule tokenize_documents as tokenize_held_out with:
    input:
        documents=layout.held_out_documents,
        tokenizer=layout.tokenizer_file(),
    output:
        meta=f"{layout.held_out()}/meta.json",
        columns=column_files(layout.held_out(), 1, experiment.columns),
    log:
        layout.log("tokenize_held_out", "tokenizer"),
    benchmark:
        layout.benchmark("tokenize_held_out", "tokenizer")
    params:
        code=code("tokenize_documents", made_by="tokenize_held_out"),
        script=script("tokenize_documents"),
        settings=always(
            block_size=config["corpus"]["block_size"], shards=1, truth=experiment.has_truth
        ),
        folder=subpath(output.meta, parent=True),
        tokenizer=subpath(input.tokenizer, parent=True),
        parts=[],
    message:
        "tokenize the held-out documents with {wildcards.tokenizer}"


rule read_prompts:
    input:
        files=lambda w: sources.inputs(
            config["benchmarks"][w.benchmark], f"benchmarks.{w.benchmark}.files"
        ),
    output:
        records=layout.prompts(),
        report=layout.prompts_report(),
    log:
        layout.log("read_prompts", "benchmark"),
    benchmark:
        layout.benchmark("read_prompts", "benchmark")
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        code=code("read_prompts"),
        script=script("read_prompts"),
        settings=lambda w: settings_of(
            prompts=without(
                config["benchmarks"][w.benchmark], "files", "hub", "revision", "generation"
            ),
            needs_continuation=False,
            seed=SEED,
        ),
        paths=lambda w: sources.arguments(
            config["benchmarks"][w.benchmark], f"benchmarks.{w.benchmark}.files"
        ),
        match=[],
    message:
        "prompts of {wildcards.benchmark}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --files {params.paths:q}"
        " {params.match:q} --report {output.report:q} --output {output.records:q} > {log:q} 2>&1"


use rule read_prompts as read_passages with:
    output:
        records=layout.passages(),
        report=layout.passages_report(),
    log:
        layout.log("read_passages", "benchmark"),
    benchmark:
        layout.benchmark("read_passages", "benchmark")
    params:
        code=code("read_prompts", made_by="read_passages"),
        script=script("read_prompts"),
        settings=lambda w: settings_of(
            prompts=without(config["benchmarks"][w.benchmark], "files", "hub", "revision"),
            block_size=config["corpus"]["block_size"],
            seed=SEED,
        ),
        paths=lambda w: sources.arguments(
            config["benchmarks"][w.benchmark], f"benchmarks.{w.benchmark}.files"
        ),
        match=[],
    message:
        "passages of {wildcards.benchmark}"


use rule read_prompts as read_queries with:
    input:
        files=lambda w: sources.inputs(config["queries"][w.queries], f"queries.{w.queries}.files"),
        match=lambda w: (
            layout.queries(config["queries"][w.queries]["match"]["to"])
            if "match" in config["queries"][w.queries]
            else []
        ),
    output:
        records=layout.queries(),
        report=layout.queries_report(),
    log:
        layout.log("read_queries", "queries"),
    benchmark:
        layout.benchmark("read_queries", "queries")
    params:
        code=code("read_prompts", made_by="read_queries"),
        script=script("read_prompts"),
        settings=lambda w: settings_of(
            prompts=without(config["queries"][w.queries], "files", "hub", "revision"),
            needs_continuation=True,
            seed=SEED,
        ),
        paths=lambda w: sources.arguments(
            config["queries"][w.queries], f"queries.{w.queries}.files"
        ),
        match=lambda w, input: ["--match", input.match] if input.match else [],
    message:
        "query records {wildcards.queries}"


rule read_pairs:
    input:
        files=lambda w: methods.pairs_inputs(w.method),
    output:
        pairs=layout.pairs(),
        report=layout.pairs_report(),
    log:
        layout.log("read_pairs", "method"),
    benchmark:
        layout.benchmark("read_pairs", "method")
    wildcard_constraints:
        method=names(methods.with_need(Pairs)),
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        code=code("read_pairs"),
        script=script("read_pairs"),
        settings=lambda w: settings_of(pairs=methods.pairs_settings(w.method), seed=SEED),
        paths=lambda w: methods.pairs_arguments(w.method),
    message:
        "pairs of {wildcards.method}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --files {params.paths:q}"
        " --report {output.report:q} --output {output.pairs:q} > {log:q} 2>&1"


use rule read_pairs as read_rival_pairs with:
    input:
        files=lambda w: rivals.pairs_inputs(w.direction),
    output:
        pairs=layout.rival_pairs(),
        report=layout.rival_pairs_report(),
    log:
        layout.log("read_rival_pairs", "direction"),
    benchmark:
        layout.benchmark("read_rival_pairs", "direction")
    wildcard_constraints:
        direction=names(rivals.with_pairs),
    params:
        code=code("read_pairs", made_by="read_rival_pairs"),
        script=script("read_pairs"),
        settings=lambda w: settings_of(pairs=rivals.pairs_settings(w.direction), seed=SEED),
        paths=lambda w: rivals.pairs_arguments(w.direction),
    message:
        "pairs of the rival {wildcards.direction}"


rule read_texts:
    input:
        files=lambda w: sources.source_inputs(
            config["texts"][w.texts]["sources"], f"texts.{w.texts}.sources"
        ),
    output:
        texts=layout.texts(),
        report=layout.texts_report(),
    log:
        layout.log("read_texts", "texts"),
    benchmark:
        layout.benchmark("read_texts", "texts")
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        code=code("read_texts"),
        script=script("read_texts"),
        settings=lambda w: settings_of(
            **sources.labelled_sources(config["texts"][w.texts]), seed=SEED
        ),
        files=lambda w: sources.source_arguments(
            config["texts"][w.texts]["sources"], f"texts.{w.texts}.sources"
        ),
    message:
        "labelled texts {wildcards.texts}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --files {params.files:q}"
        " --report {output.report:q} --output {output.texts:q} > {log:q} 2>&1"


use rule read_texts as read_judge_texts with:
    input:
        files=lambda w: sources.source_inputs(
            config["classifiers"][w.classifier]["train"]["sources"],
            f"classifiers.{w.classifier}.train.sources",
        ),
    output:
        texts=layout.judge_texts(),
        report=layout.judge_texts_report(),
    log:
        layout.log("read_judge_texts", "classifier"),
    benchmark:
        layout.benchmark("read_judge_texts", "classifier")
    wildcard_constraints:
        classifier=names(judges.trained),
    params:
        code=code("read_texts", made_by="read_judge_texts"),
        script=script("read_texts"),
        settings=lambda w: settings_of(
            **sources.labelled_sources(config["classifiers"][w.classifier]["train"]), seed=SEED
        ),
        files=lambda w: sources.source_arguments(
            config["classifiers"][w.classifier]["train"]["sources"],
            f"classifiers.{w.classifier}.train.sources",
        ),
    message:
        "labelled texts of the judge {wildcards.classifier}"


use rule read_texts as read_reward_texts with:
    input:
        files=lambda w: sources.source_inputs(
            config["rewards"][w.reward]["train"]["sources"], f"rewards.{w.reward}.train.sources"
        ),
    output:
        texts=layout.reward_texts(),
        report=layout.reward_texts_report(),
    log:
        layout.log("read_reward_texts", "reward"),
    benchmark:
        layout.benchmark("read_reward_texts", "reward")
    params:
        code=code("read_texts", made_by="read_reward_texts"),
        script=script("read_texts"),
        settings=lambda w: settings_of(
            **sources.labelled_sources(config["rewards"][w.reward]["train"]), seed=SEED
        ),
        files=lambda w: sources.source_arguments(
            config["rewards"][w.reward]["train"]["sources"], f"rewards.{w.reward}.train.sources"
        ),
    message:
        "labelled texts of the reward model {wildcards.reward}"


rule check_disjoint:
    input:
        learned=learned.files,
        prompts=[layout.prompts(name) for name in experiment.benchmarks_of("prompts")],
    output:
        record=layout.disjoint,
    log:
        layout.log("check_disjoint"),
    benchmark:
        layout.benchmark("check_disjoint")
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        code=code("check_disjoint"),
        script=script("check_disjoint"),
        learned=learned.options,
    message:
        "nothing that methods and judges are made from is a test prompt"
    shell:
        "python {params.script:q} {params.learned:q} --prompts {input.prompts:q}"
        " --output {output.record:q} > {log:q} 2>&1"


# A benchmark that is added leaves what is known of the others: the corpus may be large.
rule measure_contamination:
    input:
        texts=layout.documents,
        prompts=layout.prompts(),
    output:
        measured=layout.corpus_contamination(),
    log:
        layout.log("measure_contamination", "benchmark"),
    benchmark:
        layout.benchmark("measure_contamination", "benchmark")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(600),
    params:
        code=code("measure_contamination"),
        script=script("measure_contamination"),
        settings=always(**config["contamination"]),
        texts=lambda w, input: ["--documents", input.texts],
    message:
        "overlap of the corpus with the prompts of {wildcards.benchmark}"
    shell:
        "python {params.script:q} --settings {params.settings:q} {params.texts:q}"
        " --prompts {input.prompts:q} --output {output.measured:q} > {log:q} 2>&1"


use rule measure_contamination as measure_learned_contamination with:
    input:
        texts=learned.files,
        prompts=[layout.prompts(name) for name in experiment.benchmarks_of("prompts")],
    output:
        measured=layout.shown("contamination.json"),
    log:
        layout.shown_log("measure_learned_contamination"),
    benchmark:
        layout.shown_benchmark("measure_learned_contamination")
    params:
        code=code("measure_contamination", made_by="measure_learned_contamination"),
        script=script("measure_contamination"),
        settings=always(**config["contamination"]),
        texts=learned.options,
    message:
        "overlap of what judges and methods learn from with test prompts"


rule check_prompt_lengths:
    input:
        tokenizer=lambda w: layout.tokenizer_file(experiment.tokenizer_of(w.model)),
        prompts=[layout.prompts(name) for name in evaluation.prompts],
        architecture=lambda w: sources.architecture_inputs(w.model),
    output:
        records=layout.prompt_lengths(evaluation.prompts),
    log:
        layout.log("check_prompt_lengths", "model"),
    benchmark:
        layout.benchmark("check_prompt_lengths", "model")
    # Before any training. An input of make_model would train again whatever is checked again, and
    # `ancient` there would hide changes of the training's own settings.
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        code=code("check_prompt_lengths"),
        script=script("check_prompt_lengths"),
        settings=lambda w: settings_of(
            model=w.model,
            architecture=sources.architecture(w.model),
            block_size=config["corpus"]["block_size"],
            max_new_tokens=evaluation.longest_continuations(),
        ),
        benchmarks=evaluation.prompts,
        tokenizer=subpath(input.tokenizer, parent=True),
    message:
        "prompts fit into {wildcards.model}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --tokenizer {params.tokenizer:q}"
        " --benchmarks {params.benchmarks:q} --prompts {input.prompts:q}"
        " --output {output.records:q} > {log:q} 2>&1"


rule fetch:
    input:
        [layout.fetched(name) for name in sources.downloads],
        [layout.fetched_repository(name) for name in sources.repositories],
