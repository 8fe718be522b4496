# From files to tokens: downloads, the planted corpus, documents, tokenizers, blocks, prompts.


rule fetch_file:
    input:
        code=code("fetch_file.py"),
    output:
        # The file itself is not an output: a failed job must never delete a user's data.
        record=f"{RESULTS}/fetched/{{download}}.json",
    log:
        f"{LOGS}/fetch_file/{{download}}.log",
    benchmark:
        f"{BENCHMARKS}/fetch_file/{{download}}.tsv"
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
        settings=lambda wildcards: canonical(without(DOWNLOADS[wildcards.download], "path")),
        path=lambda wildcards: os.path.join(
            config["data_dir"], DOWNLOADS[wildcards.download]["path"]
        ),
    message:
        "fetch {wildcards.download}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --path {params.path:q}"
        " --output {output.record:q} > {log:q} 2>&1"


rule fetch_repository:
    input:
        code=code("fetch_repository.py"),
    output:
        # Here too the files themselves are no output.
        record=f"{RESULTS}/fetched/hub/{{repository}}.json",
    log:
        f"{LOGS}/fetch_repository/{{repository}}.log",
    benchmark:
        f"{BENCHMARKS}/fetch_repository/{{repository}}.tsv"
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
        settings=lambda wildcards: canonical(vars(REPOSITORIES[wildcards.repository][0])),
        directory=lambda wildcards: repository_directory(REPOSITORIES[wildcards.repository][0]),
        # Advice for the error message changes no result: with `input` it is not tracked.
        instead=lambda wildcards, input: REPOSITORIES[wildcards.repository][1],
    message:
        "fetch {wildcards.repository} from the hub"
    shell:
        'HF_HUB_OFFLINE="$FETCH_HUB_OFFLINE" python {input.code[0]:q} --settings {params.settings:q}'
        " --directory {params.directory:q} --instead {params.instead:q}"
        " --output {output.record:q} > {log:q} 2>&1"


rule plant:
    input:
        code=code("plant.py"),
    output:
        [f"{PLANTED}/{name}" for name in PLANTED_FILES],
    log:
        f"{LOGS}/plant.log",
    benchmark:
        f"{BENCHMARKS}/plant.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(20),
    params:
        settings=always(planted=config.get("planted", {}), seed=SEED),
        folder=subpath(output[0], parent=True),
    message:
        "generate the planted corpus"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --output-dir {params.folder:q}"
        " > {log:q} 2>&1"


rule read_documents:
    input:
        code=code("read_documents.py"),
        files=source_inputs(config["corpus"]["sources"], "corpus.sources"),
    output:
        training=f"{RESULTS}/corpus/documents.jsonl",
        held_out=f"{RESULTS}/corpus/held_out.jsonl",
        report=f"{RESULTS}/corpus/documents.json",
    log:
        f"{LOGS}/read_documents.log",
    benchmark:
        f"{BENCHMARKS}/read_documents.tsv"
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(600),
    params:
        settings=always(
            sources=[
                without(source, "files", "hub", "revision")
                for source in config["corpus"]["sources"]
            ],
            seed=SEED,
        ),
        paths=source_paths(config["corpus"]["sources"], "corpus.sources"),
    message:
        "read the corpus"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --files {params.paths:q}"
        " --training {output.training:q} --held-out {output.held_out:q}"
        " --report {output.report:q} > {log:q} 2>&1"


rule make_tokenizer:
    input:
        code=code("make_tokenizer.py"),
        documents=f"{RESULTS}/corpus/documents.jsonl",
        source=lambda wildcards: tokenizer_input(wildcards.tokenizer),
    output:
        tokenizer=f"{RESULTS}/corpus/{{tokenizer}}/tokenizer/tokenizer.json",
        settings=f"{RESULTS}/corpus/{{tokenizer}}/tokenizer/tokenizer_config.json",
    log:
        f"{LOGS}/make_tokenizer/{{tokenizer}}.log",
    benchmark:
        f"{BENCHMARKS}/make_tokenizer/{{tokenizer}}.tsv"
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        settings=lambda wildcards: canonical(tokenizer_of(wildcards.tokenizer)),
        folder=subpath(output.tokenizer, parent=True),
    message:
        "tokenizer {wildcards.tokenizer}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q}"
        " --documents {input.documents:q} --output {params.folder:q} > {log:q} 2>&1"


rule tokenize_part:
    input:
        code=code("tokenize_part.py"),
        documents=f"{RESULTS}/corpus/documents.jsonl",
        tokenizer=f"{RESULTS}/corpus/{{tokenizer}}/tokenizer/tokenizer.json",
    output:
        part=f"{RESULTS}/corpus/{{tokenizer}}/parts/shard-{{shard}}.npy",
        record=f"{RESULTS}/corpus/{{tokenizer}}/parts/shard-{{shard}}.json",
    log:
        f"{LOGS}/tokenize_part/{{tokenizer}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/tokenize_part/{{tokenizer}}/{{shard}}.tsv"
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        settings=lambda wildcards: settings_of(
            shard=[int(wildcards.shard), config["corpus"]["shards"]]
        ),
        tokenizer=subpath(input.tokenizer, parent=True),
    message:
        "tokenize part {wildcards.shard} of the corpus with {wildcards.tokenizer}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --documents {input.documents:q}"
        " --tokenizer {params.tokenizer:q} --output {output.part:q} > {log:q} 2>&1"


rule tokenize_documents:
    input:
        code=code("tokenize_documents.py"),
        documents=f"{RESULTS}/corpus/documents.jsonl",
        tokenizer=f"{RESULTS}/corpus/{{tokenizer}}/tokenizer/tokenizer.json",
        parts=lambda wildcards: token_parts(wildcards.tokenizer, "npy"),
        records=lambda wildcards: token_parts(wildcards.tokenizer, "json"),
    output:
        meta=f"{RESULTS}/corpus/{{tokenizer}}/meta.json",
        columns=[
            f"{RESULTS}/corpus/{{tokenizer}}/{column}/shard-{shard}.npy"
            for column in ["tokens", "documents"] + (["truth"] if HAS_TRUTH else [])
            for shard in shards(config["corpus"]["shards"])
        ],
    log:
        f"{LOGS}/tokenize_documents/{{tokenizer}}.log",
    benchmark:
        f"{BENCHMARKS}/tokenize_documents/{{tokenizer}}.tsv"
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(600),
    params:
        settings=always(
            block_size=config["corpus"]["block_size"],
            shards=config["corpus"]["shards"],
            truth=HAS_TRUTH,
        ),
        folder=subpath(output.meta, parent=True),
        tokenizer=subpath(input.tokenizer, parent=True),
        parts=lambda wildcards, input: ["--parts", *input.parts] if input.parts else [],
    message:
        "pack the corpus, tokenized with {wildcards.tokenizer}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --documents {input.documents:q}"
        " {params.parts:q} --tokenizer {params.tokenizer:q} --output {params.folder:q}"
        " > {log:q} 2>&1"


use rule tokenize_documents as tokenize_held_out with:
    input:
        code=code("tokenize_documents.py"),
        documents=f"{RESULTS}/corpus/held_out.jsonl",
        tokenizer=f"{RESULTS}/corpus/{{tokenizer}}/tokenizer/tokenizer.json",
    output:
        meta=f"{RESULTS}/corpus/{{tokenizer}}/held_out/meta.json",
        columns=[
            f"{RESULTS}/corpus/{{tokenizer}}/held_out/{column}/shard-00000.npy"
            for column in ["tokens", "documents"] + (["truth"] if HAS_TRUTH else [])
        ],
    log:
        f"{LOGS}/tokenize_held_out/{{tokenizer}}.log",
    benchmark:
        f"{BENCHMARKS}/tokenize_held_out/{{tokenizer}}.tsv"
    params:
        settings=always(block_size=config["corpus"]["block_size"], shards=1, truth=HAS_TRUTH),
        folder=subpath(output.meta, parent=True),
        tokenizer=subpath(input.tokenizer, parent=True),
        parts=[],
    message:
        "tokenize the held-out documents with {wildcards.tokenizer}"


rule read_queries:
    input:
        code=code("read_prompts.py"),
        files=lambda wildcards: inputs_of(
            config["queries"][wildcards.queries], f"queries.{wildcards.queries}"
        ),
        match=lambda wildcards: (
            f"{RESULTS}/queries/{config['queries'][wildcards.queries]['match']['to']}.jsonl"
            if "match" in config["queries"][wildcards.queries]
            else []
        ),
    output:
        records=f"{RESULTS}/queries/{{queries}}.jsonl",
        report=f"{RESULTS}/queries/{{queries}}.json",
    log:
        f"{LOGS}/read_queries/{{queries}}.log",
    benchmark:
        f"{BENCHMARKS}/read_queries/{{queries}}.tsv"
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        settings=lambda wildcards: settings_of(
            prompts=without(config["queries"][wildcards.queries], "files", "hub", "revision"),
            needs_continuation=True,
            seed=SEED,
        ),
        paths=lambda wildcards: paths_of(
            config["queries"][wildcards.queries], f"queries.{wildcards.queries}"
        ),
        match=lambda wildcards, input: ["--match", input.match] if input.match else [],
    message:
        "query records {wildcards.queries}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --files {params.paths:q}"
        " {params.match:q} --report {output.report:q} --output {output.records:q} > {log:q} 2>&1"


rule read_prompts:
    input:
        code=code("read_prompts.py"),
        files=lambda wildcards: inputs_of(
            config["benchmarks"][wildcards.benchmark], f"benchmarks.{wildcards.benchmark}"
        ),
    output:
        records=f"{RESULTS}/prompts/{{benchmark}}.jsonl",
        report=f"{RESULTS}/prompts/{{benchmark}}.json",
    log:
        f"{LOGS}/read_prompts/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/read_prompts/{{benchmark}}.tsv"
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        settings=lambda wildcards: settings_of(
            prompts=without(
                config["benchmarks"][wildcards.benchmark], "files", "hub", "revision", "generation"
            ),
            needs_continuation=False,
            seed=SEED,
        ),
        paths=lambda wildcards: paths_of(
            config["benchmarks"][wildcards.benchmark], f"benchmarks.{wildcards.benchmark}"
        ),
    message:
        "prompts of {wildcards.benchmark}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --files {params.paths:q}"
        " --report {output.report:q} --output {output.records:q} > {log:q} 2>&1"


rule check_disjoint:
    input:
        code=code("check_disjoint.py"),
        queries=expand(f"{RESULTS}/queries/{{queries}}.jsonl", queries=config["queries"]),
        prompts=expand(f"{RESULTS}/prompts/{{benchmark}}.jsonl", benchmark=benchmarks_of("prompts")),
        pairs=[f"{RESULTS}/pairs/{method}.jsonl" for method in PAIRED],
    output:
        record=f"{RESULTS}/queries/disjoint.json",
    log:
        f"{LOGS}/check_disjoint.log",
    benchmark:
        f"{BENCHMARKS}/check_disjoint.tsv"
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    message:
        "no query record and no pair is a test prompt"
    shell:
        "python {input.code[0]:q} --queries {input.queries:q} --prompts {input.prompts:q}"
        " --pairs {input.pairs:q} --output {output.record:q} > {log:q} 2>&1"


rule check_prompt_lengths:
    input:
        code=code("check_prompt_lengths.py"),
        tokenizer=lambda wildcards: f"{corpus_of(wildcards.model)}/tokenizer/tokenizer.json",
        prompts=f"{RESULTS}/prompts/{{benchmark}}.jsonl",
        architecture=lambda wildcards: architecture_inputs(wildcards.model),
    output:
        record=f"{RESULTS}/prompts/lengths/{{model}}/{{benchmark}}.json",
    log:
        f"{LOGS}/check_prompt_lengths/{{model}}/{{benchmark}}.log",
    benchmark:
        f"{BENCHMARKS}/check_prompt_lengths/{{model}}/{{benchmark}}.tsv"
    # Before any training. An input of train_model would train again whatever is checked again, and
    # `ancient` there would hide changes of the training's own settings.
    priority: 100
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        settings=lambda wildcards: settings_of(
            benchmark=wildcards.benchmark,
            model=wildcards.model,
            architecture=architecture_of(wildcards.model),
            block_size=config["corpus"]["block_size"],
            max_new_tokens=longest_continuation(wildcards.benchmark),
        ),
        tokenizer=subpath(input.tokenizer, parent=True),
    message:
        "prompts of {wildcards.benchmark} fit into {wildcards.model}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --tokenizer {params.tokenizer:q}"
        " --prompts {input.prompts:q} --output {output.record:q} > {log:q} 2>&1"


rule fetch:
    input:
        expand(f"{RESULTS}/fetched/{{download}}.json", download=DOWNLOADS),
        expand(f"{RESULTS}/fetched/hub/{{repository}}.json", repository=REPOSITORIES),
