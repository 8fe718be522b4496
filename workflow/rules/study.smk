# in:   influence/{model}/{direction}/scores/, factors, gradients
# out:  study.csv, figures/study.*, ranking_agreement.csv, proxy_agreement.json
#
# Which settings of the scores find the known toxic tokens best: variants, and the factors' sample.

STUDIED_QUERIES = influence.studied_queries(shown.studied)


rule draw_study:
    input:
        metrics=[influence.variant_file(variant) for variant in shown.studied],
        queries=[layout.queries_report(queries) for queries in STUDIED_QUERIES],
    output:
        table=layout.shown("study.csv"),
        markdown=layout.shown("study.md"),
        svg=layout.shown("figures/study.svg"),
        png=report(
            layout.shown("figures/study.png"),
            caption="../report/study.rst",
            category=CATEGORIES["found"],
            labels={"shows": "variants of the token scores"},
        ),
    log:
        layout.shown_log("draw_study"),
    benchmark:
        layout.shown_benchmark("draw_study")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("draw_study"),
        script=script("draw_study"),
        settings=always(
            study=shown.study,
            variants={variant: influence.spelled_out(variant) for variant in shown.studied},
        ),
        metrics=[f"{variant}={influence.variant_file(variant)}" for variant in shown.studied],
        queries=[f"{name}={layout.queries_report(name)}" for name in STUDIED_QUERIES],
    message:
        "compare variants of the token scores"
    shell:
        "python {params.script:q} --settings {params.settings:q} --metrics {params.metrics:q}"
        " --queries {params.queries:q} --table {output.table:q} --markdown {output.markdown:q}"
        " --figures {output.svg:q} {output.png:q} > {log:q} 2>&1"


rule measure_agreement:
    input:
        model=lambda w: methods.model_files(w.model, "none", PROXY_SEED),
        corpus=lambda w: experiment.corpus_files(
            experiment.corpus_of(w.model), "tokens", "documents"
        ),
        factors=layout.factors(),
        toxic=lambda w: influence.gradient_file(w.model, w.direction, "toxic"),
        safe=lambda w: influence.gradient_file(w.model, w.direction, "safe"),
        selection=shown.selection_record,
    output:
        table=report(
            f"{layout.direction()}/ranking_agreement.csv",
            caption="../report/ranking_agreement.rst",
            category=CATEGORIES["found"],
            labels={"shows": "blocks that the factors need (numbers)"},
        ),
    log:
        layout.log("measure_agreement", "model", "direction"),
    benchmark:
        layout.benchmark("measure_agreement", "model", "direction")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
        gpu=0,
    params:
        code=code("measure_agreement"),
        script=script("measure_agreement"),
        settings=lambda w: settings_of(
            factors=without(config["influence"]["factors"], "shards"),
            direction=without(
                config["influence"]["directions"][w.direction],
                "toxic",
                "safe",
                "measure",
                "model",
            ),
            scores={
                key: config["influence"]["scores"][key]
                for key in ("batch_size", "logits_budget_mib")
            },
            blocks=config["report"]["agreement_blocks"],
            share=shown.share,
            seed=SEED,
        ),
        model=lambda w: layout.model(w.model, "none", PROXY_SEED),
        corpus=lambda w: experiment.corpus_of(w.model),
        selection=shown.selection_options,
        safe=lambda w, input: ["--safe", input.safe] if input.safe else [],
    message:
        "how the ranking along {wildcards.direction} depends on the factors' sample"
    shell:
        "python {params.script:q} --settings {params.settings:q} --model {params.model:q}"
        " --corpus {params.corpus:q} --factors {input.factors:q} --toxic {input.toxic:q}"
        " {params.safe:q} {params.selection:q} --output {output.table:q} > {log:q} 2>&1"


rule measure_proxy_agreement:
    input:
        corpus=lambda w: experiment.corpus_files(
            experiment.corpus_of(w.model), "tokens", "documents"
        ),
        proxy=lambda w: methods.model_files(influence.model_of(w.direction), "none", PROXY_SEED),
        proxy_direction=lambda w: (
            layout.direction_file(influence.model_of(w.direction), w.direction)
        ),
        target=lambda w: methods.model_files(w.model, "none", PROXY_SEED),
        target_direction=layout.direction_file(),
        selection=shown.selection_record,
    output:
        found=f"{layout.direction()}/proxy_agreement.json",
    log:
        layout.log("measure_proxy_agreement", "model", "direction"),
    benchmark:
        layout.benchmark("measure_proxy_agreement", "model", "direction")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        code=code("measure_proxy_agreement"),
        script=script("measure_proxy_agreement"),
        settings=always(
            blocks=(config["report"]["proxy_agreement"] or {}).get("blocks"),
            share=shown.share,
            scores={
                key: config["influence"]["scores"][key]
                for key in ("batch_size", "logits_budget_mib")
            },
            seed=SEED,
            resamples=config["evaluation"]["ranking_resamples"],
            level=config["evaluation"]["level"],
        ),
        corpus=lambda w: experiment.corpus_of(w.model),
        selection=shown.selection_options,
        proxy=lambda w: (layout.model(influence.model_of(w.direction), "none", PROXY_SEED)),
        proxy_name=lambda w: influence.model_of(w.direction),
        target=lambda w: layout.model(w.model, "none", PROXY_SEED),
    message:
        "how far the scores of the proxy and of {wildcards.model} agree"
    shell:
        "python {params.script:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --proxy {params.proxy:q} --proxy-name {params.proxy_name:q}"
        " --proxy-direction {input.proxy_direction:q} --target {params.target:q}"
        " --target-name {wildcards.model:q} --target-direction {input.target_direction:q}"
        " {params.selection:q} --output {output.found:q} > {log:q} 2>&1"


rule study:
    input:
        rules.draw_study.output if shown.study else [],
        shown.agreement,
        shown.proxy_agreement,
