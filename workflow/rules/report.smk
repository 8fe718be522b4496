# The summary, the figures, the pages and the report that holds them.

MAIN_BENCHMARK = config["report"]["benchmark"]
AGREEMENT = agreement_file()
PROXY_AGREEMENT = proxy_agreement_file()
# A classifier that is trained here tells no categories of toxicity apart.
CATEGORIES_OF_TOXICITY = "train" not in CLASSIFIERS["explicit"]
FIGURES = (
    [
        "toxicity_by_method",
        "toxicity_against_perplexity",
        "toxicity_against_share",
        "toxicity_by_group",
        "training_losses",
    ]
    + (["toxicity_by_category"] if CATEGORIES_OF_TOXICITY else [])
    + (["precision_recall"] if HAS_TRUTH else [])
    + (["ranking_agreement"] if AGREEMENT else [])
    + (["proxy_agreement"] if PROXY_AGREEMENT else [])
)
SHOWN_SELECTION = shown_selection()
SHOWN_FOLDER = selection_folder(SHOWN_SELECTION)
SHOWN_SCORES = (
    config["influence"]["selections"][SHOWN_SELECTION]["direction"],
    config["influence"]["selections"][SHOWN_SELECTION]["attribution"],
)
ATTRIBUTION_METRICS = (
    [
        f"{influence_folder(direction)}/scores/{attribution}/attribution.json"
        for direction, attribution in MEASURED
    ]
    if HAS_TRUTH
    else []
) + [variant_file(variant) for variant in VARIANTS]
CLASSIFIER_METRICS = [
    f"{RESULTS}/classifiers/{name}/quality.json"
    for name, entry in config["classifiers"].items()
    if "train" in entry
] + sorted(
    {
        f"{reward_of(model, method)}/quality.json"
        for model, method, _ in EVALUATED
        if reward_of(model, method)
    }
)
LOSSES = [
    f"{RESULTS}/models/{model}/{method}/{seed}/losses.csv"
    for model, method, seed in dict.fromkeys(
        [*((proxy, "none", PROXY_SEED) for proxy in PROXIES), *TRAINED]
    )
    # Losses of pairs cannot stand on the axis of losses of tokens.
    if "dpo" not in config["methods"][method]
]


rule summary:
    input:
        code=code("summarize.py"),
        disjoint=f"{RESULTS}/queries/disjoint.json",
        metrics=METRICS + REMOVAL_METRICS + ATTRIBUTION_METRICS + CLASSIFIER_METRICS,
        published=os.path.relpath(SOURCE / "config" / "published.csv"),
    output:
        summary=f"{TABLES}/summary.csv",
        markdown=f"{TABLES}/results_table.md",
        csv=f"{TABLES}/results_table.csv",
        latex=f"{TABLES}/results_table.tex",
        text=f"{TABLES}/results_table.txt",
        page=report(
            f"{TABLES}/results_table.html",
            caption="../report/results_table.rst",
            category=CATEGORIES["changed"],
            labels={"shows": "results table"},
        ),
    log:
        f"{TABLE_LOGS}/summary.log",
    benchmark:
        f"{TABLE_BENCHMARKS}/summary.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=always(
            seed=SEED,
            resamples=config["evaluation"]["resamples"],
            level=config["evaluation"]["level"],
            published_models=config["report"]["published_models"],
            trained_judges=any("train" in entry for entry in CLASSIFIERS.values()),
            decode_methods=sorted(
                set(config["evaluation"]["methods"]) & set(methods_with("decode"))
            ),
        ),
        benchmark=MAIN_BENCHMARK,
    message:
        "summarize"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --metrics {input.metrics:q}"
        " --benchmark {params.benchmark:q} --published {input.published:q}"
        " --output {output.summary:q} --table {output.markdown:q} --latex {output.latex:q}"
        " --csv {output.csv:q} --text {output.text:q} --html {output.page:q} > {log:q} 2>&1"


rule figures:
    input:
        code=code("draw_figures.py"),
        summary=f"{TABLES}/summary.csv",
        losses=LOSSES,
        curves=(
            [
                f"{influence_folder(direction)}/scores/{attribution}/precision_recall.csv"
                for direction, attribution in MEASURED
            ]
            + [
                str(Path(variant_file(variant)).with_name("precision_recall.csv"))
                for variant in VARIANTS
                if variant not in STUDIED
            ]
            if HAS_TRUTH
            else []
        ),
        agreement=AGREEMENT,
        proxy_agreement=PROXY_AGREEMENT,
    output:
        svg=[f"{TABLES}/figures/{figure}.svg" for figure in FIGURES],
        toxicity=report(
            f"{TABLES}/figures/toxicity_by_method.png",
            caption="../report/toxicity_by_method.rst",
            category=CATEGORIES["changed"],
            labels={"shows": "toxicity by method"},
        ),
        fluency=report(
            f"{TABLES}/figures/toxicity_against_perplexity.png",
            caption="../report/toxicity_against_perplexity.rst",
            category=CATEGORIES["cost"],
            labels={"shows": "toxicity against fluency"},
        ),
        groups=report(
            f"{TABLES}/figures/toxicity_by_group.png",
            caption="../report/toxicity_by_group.rst",
            category=CATEGORIES["changed"],
            labels={"shows": "toxicity by target group"},
        ),
        categories=(
            report(
                f"{TABLES}/figures/toxicity_by_category.png",
                caption="../report/toxicity_by_category.rst",
                category=CATEGORIES["changed"],
                labels={"shows": "toxicity by category"},
            )
            if CATEGORIES_OF_TOXICITY
            else []
        ),
        shares=report(
            f"{TABLES}/figures/toxicity_against_share.png",
            caption="../report/toxicity_against_share.rst",
            category=CATEGORIES["cost"],
            labels={"shows": "toxicity against the share of tokens taken"},
        ),
        losses=report(
            f"{TABLES}/figures/training_losses.png",
            caption="../report/training_losses.rst",
            category=CATEGORIES["trained"],
            labels={"shows": "training losses"},
        ),
        curves=(
            report(
                f"{TABLES}/figures/precision_recall.png",
                caption="../report/precision_recall.rst",
                category=CATEGORIES["found"],
                labels={"shows": "precision and recall of token scores"},
            )
            if HAS_TRUTH
            else []
        ),
        agreement=(
            report(
                f"{TABLES}/figures/ranking_agreement.png",
                caption="../report/ranking_agreement.rst",
                category=CATEGORIES["found"],
                labels={"shows": "blocks that the factors need"},
            )
            if AGREEMENT
            else []
        ),
        proxy_agreement=(
            report(
                f"{TABLES}/figures/proxy_agreement.png",
                caption="../report/proxy_agreement.rst",
                category=CATEGORIES["found"],
                labels={"shows": "agreement of proxy and target"},
            )
            if PROXY_AGREEMENT
            else []
        ),
    log:
        f"{TABLE_LOGS}/figures.log",
    benchmark:
        f"{TABLE_BENCHMARKS}/figures.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=always(
            benchmark=MAIN_BENCHMARK,
            group_benchmark=config["report"]["groups"],
            categories=CATEGORIES_OF_TOXICITY,
        ),
        folder=subpath(output.toxicity, parent=True),
        losses=[f"{name_of_model(path)}={path}" for path in LOSSES],
        curves=lambda wildcards, input: ["--curves", *input.curves] if input.curves else [],
        agreement=lambda wildcards, input: (
            ["--agreement", input.agreement] if input.agreement else []
        ),
        proxy_agreement=lambda wildcards, input: (
            ["--proxy-agreement", input.proxy_agreement] if input.proxy_agreement else []
        ),
    message:
        "draw the figures"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --summary {input.summary:q}"
        " --losses {params.losses:q} {params.curves:q} {params.agreement:q}"
        " {params.proxy_agreement:q} --output-dir {params.folder:q}"
        " > {log:q} 2>&1"


rule describe_documents:
    input:
        code=code("describe_documents.py"),
        corpus=corpus_files(
            config["models"][PROXY]["tokenizer"],
            *(["tokens", "documents"] + (["truth"] if HAS_TRUTH else [])),
        ),
        scores=score_files(*SHOWN_SCORES),
        records=score_files(*SHOWN_SCORES, "json"),
        selection=f"{SHOWN_FOLDER}/selection.json",
        selected=selection_files(SHOWN_FOLDER),
        ranking=f"{SHOWN_FOLDER}/documents.csv",
    output:
        documents=f"{SHOWN_FOLDER}/described.jsonl",
    log:
        f"{LOGS}/describe_documents.log",
    benchmark:
        f"{BENCHMARKS}/describe_documents.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=always(documents=config["report"]["documents"]),
        corpus=lambda wildcards: corpus_of(PROXY),
        selection=subpath(input.selection, parent=True),
    message:
        "describe the highest ranked documents"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --scores {input.scores:q} --selection {params.selection:q}"
        " --output {output.documents:q} > {log:q} 2>&1"


rule pages:
    input:
        code=code("write_pages.py"),
        ranking=f"{SHOWN_FOLDER}/documents.csv",
        described=f"{SHOWN_FOLDER}/described.jsonl",
        generations=[
            f"{RESULTS}/evaluation/{model}/{method}/{PROXY_SEED}/{MAIN_BENCHMARK}/generations.jsonl"
            for model in config["evaluation"]["models"][:1]
            for method in config["evaluation"]["methods"]
        ],
    output:
        documents=report(
            f"{TABLES}/pages/documents.html",
            caption="../report/documents.rst",
            category=CATEGORIES["found"],
            labels={"shows": "ranked documents"},
        ),
        tokens=report(
            f"{TABLES}/pages/tokens.html",
            caption="../report/tokens.rst",
            category=CATEGORIES["found"],
            labels={"shows": "tokens shaded by score"},
        ),
        continuations=report(
            f"{TABLES}/pages/continuations.html",
            caption="../report/continuations.rst",
            category=CATEGORIES["changed"],
            labels={"shows": "continuations side by side"},
        ),
    log:
        f"{TABLE_LOGS}/pages.log",
    benchmark:
        f"{TABLE_BENCHMARKS}/pages.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=always(
            documents=config["report"]["documents"],
            prompts=config["report"]["prompts"],
            samples=config["report"]["samples"],
            seed=SEED,
        ),
        generations=lambda wildcards, input: [
            f"{Path(path).parts[-4]}={path}" for path in input.generations
        ],
    message:
        "write the pages of the report"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --documents {input.ranking:q}"
        " --texts {input.described:q} --tokens {input.described:q}"
        " --generations {params.generations:q} --output-documents {output.documents:q}"
        " --output-tokens {output.tokens:q} --output-continuations {output.continuations:q}"
        " > {log:q} 2>&1"


rule results:
    input:
        rules.summary.output,
        rules.figures.output,
        rules.pages.output,
        rules.study.input,


rule report_html:
    input:
        rules.results.input,
        captions=sorted(
            os.path.relpath(path) for path in (SOURCE / "workflow" / "report").glob("*.rst")
        ),
        code=code("build_report.py"),
    output:
        page=f"{TABLES}/report.html",
    log:
        f"{TABLE_LOGS}/report.log",
    benchmark:
        f"{TABLE_BENCHMARKS}/report.tsv"
    localrule: True
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=always(**without(config, "plan")),
        snakefile=os.path.relpath(SOURCE / "workflow" / "Snakefile"),
    message:
        "build the report"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --snakefile {params.snakefile:q}"
        " --output {output.page:q} > {log:q} 2>&1"


rule report:
    input:
        f"{TABLES}/report.html",
