# The summary, the figures, the pages and the report that holds them.
#
# in:   all metrics, losses and scores
# out:  summary.csv, results_table.*, result.md, figures/, pages/, report.html,
#       models/{model}/{method}/{seed}/README.md


rule summarize:
    input:
        disjoint=layout.disjoint,
        metrics=(
            methods.metrics
            + shown.removal_metrics
            + shown.attribution_metrics
            + shown.classifier_metrics
        ),
        published=os.path.relpath(SOURCE / "config" / "published.csv"),
    output:
        summary=layout.shown("summary.csv"),
        markdown=layout.shown("results_table.md"),
        csv=layout.shown("results_table.csv"),
        latex=layout.shown("results_table.tex"),
        page=report(
            layout.shown("results_table.html"),
            caption="../report/results_table.rst",
            category=CATEGORIES["changed"],
            labels={"shows": "results table"},
        ),
    log:
        layout.shown_log("summarize"),
    benchmark:
        layout.shown_benchmark("summarize")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("summarize"),
        script=script("summarize"),
        settings=always(
            seed=SEED,
            resamples=config["evaluation"]["resamples"],
            level=config["evaluation"]["level"],
            published_models=config["report"]["published_models"],
            trained_judges=shown.trained_judges,
            unmeasured=methods.unmeasured(),
            controls=methods.controls,
        ),
        benchmark=shown.benchmark,
    message:
        "summarize"
    shell:
        "python {params.script:q} --settings {params.settings:q} --metrics {input.metrics:q}"
        " --benchmark {params.benchmark:q} --published {input.published:q}"
        " --output {output.summary:q} --table {output.markdown:q} --latex {output.latex:q}"
        " --csv {output.csv:q} --html {output.page:q} > {log:q} 2>&1"


rule draw_figures:
    input:
        summary=layout.shown("summary.csv"),
        losses=list(shown.losses.values()),
        curves=shown.precision_recall_curves,
        agreement=shown.agreement,
        proxy_agreement=shown.proxy_agreement,
        decoys=f"{shown.selection_folder}/decoys.csv",
        selection=f"{shown.selection_folder}/selection.json",
    output:
        svg=[layout.shown(f"figures/{figure}.svg") for figure in shown.figures],
        toxicity=report(
            layout.shown("figures/toxicity_by_method.png"),
            caption="../report/toxicity_by_method.rst",
            category=CATEGORIES["changed"],
            labels={"shows": "toxicity by method"},
        ),
        fluency=report(
            layout.shown("figures/toxicity_against_perplexity.png"),
            caption="../report/toxicity_against_perplexity.rst",
            category=CATEGORIES["cost"],
            labels={"shows": "total toxicity against fluency"},
        ),
        field=(
            report(
                layout.shown("figures/toxicity_against_fluency.png"),
                caption="../report/toxicity_against_fluency.rst",
                category=CATEGORIES["cost"],
                labels={"shows": "the field: toxicity against fluency by strength"},
            )
            if shown.field
            else []
        ),
        groups=report(
            layout.shown("figures/toxicity_by_group.png"),
            caption="../report/toxicity_by_group.rst",
            category=CATEGORIES["changed"],
            labels={"shows": "toxicity by target group"},
        ),
        categories=(
            report(
                layout.shown("figures/toxicity_by_category.png"),
                caption="../report/toxicity_by_category.rst",
                category=CATEGORIES["changed"],
                labels={"shows": "toxicity by category"},
            )
            if shown.has_categories
            else []
        ),
        shares=report(
            layout.shown("figures/toxicity_against_share.png"),
            caption="../report/toxicity_against_share.rst",
            category=CATEGORIES["cost"],
            labels={"shows": "toxicity against the share of tokens taken"},
        ),
        losses=report(
            layout.shown("figures/training_losses.png"),
            caption="../report/training_losses.rst",
            category=CATEGORIES["trained"],
            labels={"shows": "training losses"},
        ),
        curves=(
            report(
                layout.shown("figures/precision_recall.png"),
                caption="../report/precision_recall.rst",
                category=CATEGORIES["found"],
                labels={"shows": "precision and recall of token scores"},
            )
            if experiment.has_truth
            else []
        ),
        decoys=report(
            layout.shown("figures/decoys.png"),
            caption="../report/decoys.rst",
            category=CATEGORIES["found"],
            labels={"shows": "false discoveries by decoys"},
        ),
        agreement=(
            report(
                layout.shown("figures/ranking_agreement.png"),
                caption="../report/ranking_agreement.rst",
                category=CATEGORIES["found"],
                labels={"shows": "blocks that the factors need"},
            )
            if shown.agreement
            else []
        ),
        proxy_agreement=(
            report(
                layout.shown("figures/proxy_agreement.png"),
                caption="../report/proxy_agreement.rst",
                category=CATEGORIES["found"],
                labels={"shows": "agreement of proxy and target"},
            )
            if shown.proxy_agreement
            else []
        ),
    log:
        layout.shown_log("draw_figures"),
    benchmark:
        layout.shown_benchmark("draw_figures")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("draw_figures"),
        script=script("draw_figures"),
        settings=always(
            benchmark=shown.benchmark,
            group_benchmark=config["report"]["groups"],
            categories=shown.has_categories,
            judges=list(judges),
            continuations=shown.continuations,
            choice=shown.choice,
            field=shown.field,
        ),
        folder=subpath(output.toxicity, parent=True),
        losses=[f"{name}={path}" for name, path in shown.losses.items()],
        curves=lambda w, input: ["--curves", *input.curves] if input.curves else [],
        agreement=lambda w, input: (["--agreement", input.agreement] if input.agreement else []),
        proxy_agreement=lambda w, input: (
            ["--proxy-agreement", input.proxy_agreement] if input.proxy_agreement else []
        ),
    message:
        "draw the figures"
    shell:
        "python {params.script:q} --settings {params.settings:q} --summary {input.summary:q}"
        " --decoys {input.decoys:q} --selection {input.selection:q}"
        " --losses {params.losses:q} {params.curves:q} {params.agreement:q}"
        " {params.proxy_agreement:q} --output-dir {params.folder:q}"
        " > {log:q} 2>&1"


rule write_result:
    input:
        summary=layout.shown("summary.csv"),
        front=layout.shown("figures/toxicity_against_perplexity.svg"),
    output:
        text=layout.shown("results_table.txt"),
        markdown=layout.shown("result.md"),
        page=report(
            layout.shown("pages/result.html"),
            caption="../report/result.rst",
            category=CATEGORIES["result"],
            labels={"shows": "what was reached, and its price"},
        ),
    log:
        layout.shown_log("write_result"),
    benchmark:
        layout.shown_benchmark("write_result")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("write_result"),
        script=script("write_result"),
        settings=always(
            benchmark=shown.benchmark,
            model=config["evaluation"]["models"][0],
            method=shown.method,
            controls=methods.controls,
            continuations=shown.continuations[shown.benchmark],
            level=config["evaluation"]["level"],
            choice=shown.choice,
        ),
    message:
        "write the result"
    shell:
        "python {params.script:q} --settings {params.settings:q} --summary {input.summary:q}"
        " --front {input.front:q} --page {output.page:q} --text {output.text:q}"
        " --markdown {output.markdown:q} > {log:q} 2>&1"


rule describe_documents:
    input:
        corpus=experiment.corpus_files(experiment.corpus_of(PROXY), *experiment.columns),
        scores=influence.score_files(*shown.scores),
        records=influence.score_files(*shown.scores, "json"),
        selection=f"{shown.selection_folder}/selection.json",
        selected=influence.mask_files(shown.selection_folder),
        ranking=f"{shown.selection_folder}/documents.csv",
    output:
        documents=f"{shown.selection_folder}/described.jsonl",
    log:
        layout.log("describe_documents"),
    benchmark:
        layout.benchmark("describe_documents")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("describe_documents"),
        script=script("describe_documents"),
        settings=always(documents=config["report"]["documents"]),
        corpus=lambda w: experiment.corpus_of(PROXY),
        selection=subpath(input.selection, parent=True),
    message:
        "describe the highest ranked documents"
    shell:
        "python {params.script:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --scores {input.scores:q} --selection {params.selection:q}"
        " --output {output.documents:q} > {log:q} 2>&1"


rule write_pages:
    input:
        ranking=f"{shown.selection_folder}/documents.csv",
        described=f"{shown.selection_folder}/described.jsonl",
        generations=[
            f"{layout.evaluation(model, method, PROXY_SEED, shown.benchmark)}/generations.jsonl"
            for model in config["evaluation"]["models"][:1]
            for method in config["evaluation"]["methods"]
            if methods.is_measured_on(method, shown.benchmark)
        ],
        tested=layout.shown("judges/functional_tests.csv"),
        cases=layout.shown("judges/functional_cases.jsonl"),
        erased=shown.erasure,
        contamination=[
            *(
                layout.corpus_contamination(benchmark)
                for benchmark in experiment.benchmarks_of("prompts")
            ),
            layout.shown("contamination.json"),
        ],
        disjoint=layout.disjoint,
    output:
        documents=report(
            layout.shown("pages/documents.html"),
            caption="../report/documents.rst",
            category=CATEGORIES["found"],
            labels={"shows": "ranked documents"},
        ),
        tokens=report(
            layout.shown("pages/tokens.html"),
            caption="../report/tokens.rst",
            category=CATEGORIES["found"],
            labels={"shows": "tokens shaded by score"},
        ),
        continuations=report(
            layout.shown("pages/continuations.html"),
            caption="../report/continuations.rst",
            category=CATEGORIES["changed"],
            labels={"shows": "continuations side by side"},
        ),
        judges=report(
            layout.shown("pages/judges.html"),
            caption="../report/judges.rst",
            category=CATEGORIES["changed"],
            labels={"shows": "the judges: functional tests, agreement"},
        ),
        contamination=report(
            layout.shown("pages/contamination.html"),
            caption="../report/contamination.rst",
            category=CATEGORIES["cost"],
            labels={"shows": "test prompts in what was learned from"},
        ),
        erased=(
            report(
                layout.shown("pages/erased.html"),
                caption="../report/erased.rst",
                category=CATEGORIES["cost"],
                labels={"shows": "harmless phrases that are erased"},
            )
            if shown.erasure
            else []
        ),
    log:
        layout.shown_log("write_pages"),
    benchmark:
        layout.shown_benchmark("write_pages")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("write_pages"),
        script=script("write_pages"),
        settings=always(
            documents=config["report"]["documents"],
            prompts=config["report"]["prompts"],
            samples=config["report"]["samples"],
            judges=list(judges),
            threshold=config["evaluation"]["threshold"],
            resamples=config["evaluation"]["resamples"],
            level=config["evaluation"]["level"],
            seed=SEED,
        ),
        generations=lambda w, input: [
            f"{Path(path).parts[-4]}={path}" for path in input.generations
        ],
        erased=lambda w, input, output: (
            ["--erased", input.erased, "--output-erased", output.erased] if input.erased else []
        ),
    message:
        "write the pages of the report"
    shell:
        "python {params.script:q} --settings {params.settings:q} --documents {input.ranking:q}"
        " --texts {input.described:q} --tokens {input.described:q}"
        " --generations {params.generations:q} --output-documents {output.documents:q}"
        " --output-tokens {output.tokens:q} --output-continuations {output.continuations:q}"
        " --tested {input.tested:q} --cases {input.cases:q} --output-judges {output.judges:q}"
        " --contamination {input.contamination:q} --disjoint {input.disjoint:q}"
        " --output-contamination {output.contamination:q} {params.erased:q} > {log:q} 2>&1"


rule results:
    input:
        rules.summarize.output,
        rules.draw_figures.output,
        rules.write_result.output,
        rules.write_pages.output,
        rules.study.input,
        lasting.tables,


rule build_report:
    input:
        rules.results.input,
        result=layout.shown("results_table.txt"),
        opened=layout.shown("pages/result.html"),
        captions=sorted(
            os.path.relpath(path) for path in (SOURCE / "workflow" / "report").glob("*.rst")
        ),
    output:
        page=layout.shown("report.html"),
    log:
        layout.shown_log("build_report"),
    benchmark:
        layout.shown_benchmark("build_report")
    localrule: True
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("build_report"),
        script=script("build_report"),
        settings=always(**without(config, "plan")),
        # Not tracked: what is told of the code changes no result.
        other_code=lambda w, input: settings_of(**rule_code.of_other_code()),
        snakefile=os.path.relpath(SOURCE / "workflow" / "Snakefile"),
    message:
        "build the report"
    shell:
        "python {params.script:q} --settings {params.settings:q} --snakefile {params.snakefile:q}"
        " --other-code {params.other_code:q} --result {input.result:q} --opened {input.opened:q}"
        " --output {output.page:q} > {log:q} 2>&1"


# Beside a model, but no output of the rule that makes it: what is measured may change.
rule write_card:
    input:
        corpus=cards.corpus_inputs,
        tokenizer=lambda w: layout.tokenizer_file(experiment.tokenizer_of(w.model)),
        training=f"{layout.model()}/training.json",
        removal=cards.removal_inputs,
        metrics=cards.metrics,
        reference=cards.reference_metrics,
    output:
        layout.model_card(),
    log:
        layout.log("write_card", "model", "method", "seed"),
    benchmark:
        layout.benchmark("write_card", "model", "method", "seed")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("write_card"),
        script=script("write_card"),
        settings=cards.settings,
        folder=subpath(input.training, parent=True),
        corpus=cards.corpus,
        options=cards.options,
    message:
        "the card of {wildcards.model} by {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --model {params.folder:q}"
        " --corpus {params.corpus:q} {params.options:q} --output {output:q} > {log:q} 2>&1"


rule cards:
    input:
        cards.files,


rule report:
    input:
        layout.shown("report.html"),
        rules.cards.input,
