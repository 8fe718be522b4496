# Which settings of the scores find the known toxic tokens best: variants, and the factors' sample.

STUDIED = list(dict.fromkeys(variant for entry in STUDY for variant in entry["variants"]))
STUDIED_QUERIES = studied_queries(STUDIED)


rule study_table:
    input:
        code=code("draw_study.py"),
        metrics=[variant_file(variant) for variant in STUDIED],
        queries=[f"{RESULTS}/queries/{queries}.json" for queries in STUDIED_QUERIES],
    output:
        table=f"{TABLES}/study.csv",
        markdown=f"{TABLES}/study.md",
        svg=f"{TABLES}/figures/study.svg",
        png=report(
            f"{TABLES}/figures/study.png",
            caption="../report/study.rst",
            category=CATEGORIES["found"],
            labels={"shows": "variants of the token scores"},
        ),
    log:
        f"{TABLE_LOGS}/study.log",
    benchmark:
        f"{TABLE_BENCHMARKS}/study.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=always(
            study=STUDY, variants={variant: spelled_out(variant) for variant in STUDIED}
        ),
        metrics=[f"{variant}={variant_file(variant)}" for variant in STUDIED],
        queries=[f"{name}={RESULTS}/queries/{name}.json" for name in STUDIED_QUERIES],
    message:
        "compare variants of the token scores"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --metrics {params.metrics:q}"
        " --queries {params.queries:q} --table {output.table:q} --markdown {output.markdown:q}"
        " --figures {output.svg:q} {output.png:q} > {log:q} 2>&1"


rule agreement:
    input:
        code=code("measure_agreement.py"),
        model=lambda wildcards: model_files(wildcards.model, "none", PROXY_SEED),
        corpus=lambda wildcards: corpus_files(
            config["models"][wildcards.model]["tokenizer"], "tokens", "documents"
        ),
        factors=f"{RESULTS}/influence/{{model}}/factors.safetensors",
        toxic=lambda wildcards: gradient_file(wildcards, "toxic"),
        safe=lambda wildcards: gradient_file(wildcards, "safe"),
    output:
        table=report(
            f"{RESULTS}/influence/{{model}}/{{direction}}/ranking_agreement.csv",
            caption="../report/ranking_agreement.rst",
            category=CATEGORIES["found"],
            labels={"shows": "blocks that the factors need (numbers)"},
        ),
    log:
        f"{LOGS}/agreement/{{model}}/{{direction}}.log",
    benchmark:
        f"{BENCHMARKS}/agreement/{{model}}/{{direction}}.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
        gpu=0,
    params:
        settings=lambda wildcards: settings_of(
            factors=without(config["influence"]["factors"], "shards"),
            direction=without(
                config["influence"]["directions"][wildcards.direction],
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
            share=config["influence"]["selections"][shown_selection()]["limit"],
            seed=SEED,
        ),
        model=proxy_directory,
        corpus=lambda wildcards: corpus_of(wildcards.model),
        safe=lambda wildcards, input: ["--safe", input.safe] if input.safe else [],
    message:
        "how the ranking along {wildcards.direction} depends on the factors' sample"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --model {params.model:q}"
        " --corpus {params.corpus:q} --factors {input.factors:q} --toxic {input.toxic:q}"
        " {params.safe:q} --output {output.table:q} > {log:q} 2>&1"


rule proxy_agreement:
    input:
        code=code("measure_proxy_agreement.py"),
        corpus=lambda wildcards: corpus_files(
            config["models"][wildcards.model]["tokenizer"], "tokens", "documents"
        ),
        proxy=lambda wildcards: model_files(
            influence_model(wildcards.direction), "none", PROXY_SEED
        ),
        proxy_direction=lambda wildcards: (
            f"{influence_folder(wildcards.direction)}/direction.safetensors"
        ),
        target=lambda wildcards: model_files(wildcards.model, "none", PROXY_SEED),
        target_direction=f"{RESULTS}/influence/{{model}}/{{direction}}/direction.safetensors",
    output:
        found=f"{RESULTS}/influence/{{model}}/{{direction}}/proxy_agreement.json",
    log:
        f"{LOGS}/proxy_agreement/{{model}}/{{direction}}.log",
    benchmark:
        f"{BENCHMARKS}/proxy_agreement/{{model}}/{{direction}}.tsv"
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=0,
    params:
        settings=always(
            blocks=(config["report"]["proxy_agreement"] or {}).get("blocks"),
            share=config["influence"]["selections"][shown_selection()]["limit"],
            scores={
                key: config["influence"]["scores"][key]
                for key in ("batch_size", "logits_budget_mib")
            },
            seed=SEED,
            resamples=config["evaluation"]["ranking_resamples"],
            level=config["evaluation"]["level"],
        ),
        corpus=lambda wildcards: corpus_of(wildcards.model),
        proxy=lambda wildcards: (
            f"{RESULTS}/models/{influence_model(wildcards.direction)}/none/{PROXY_SEED}"
        ),
        proxy_name=lambda wildcards: influence_model(wildcards.direction),
        target=proxy_directory,
    message:
        "how far the scores of the proxy and of {wildcards.model} agree"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --proxy {params.proxy:q} --proxy-name {params.proxy_name:q}"
        " --proxy-direction {input.proxy_direction:q} --target {params.target:q}"
        " --target-name {wildcards.model:q} --target-direction {input.target_direction:q}"
        " --output {output.found:q} > {log:q} 2>&1"


rule study:
    input:
        rules.study_table.output if STUDY else [],
        agreement_file(),
        proxy_agreement_file(),
