# A selection as data, for training loops elsewhere.
#
# in:   the selections, their scores, corpus/
# out:  export/{selection}/


rule export_spans:
    input:
        corpus=experiment.corpus_files(experiment.corpus_of(PROXY), "tokens", "documents"),
        tokenizer=layout.tokenizer_file(experiment.tokenizer_of(PROXY)),
        documents=layout.documents,
        selected=lambda w: influence.mask_files(influence.selection_folder(w.selection)),
        scores=lambda w: influence.selected_by(w.selection),
        records=lambda w: influence.selected_by(w.selection, "json"),
    output:
        spans=f"{layout.export()}/spans.parquet",
        record=f"{layout.export()}/spans.json",
        card=f"{layout.export()}/README.md",
    log:
        layout.log("export_spans", "selection"),
    benchmark:
        layout.benchmark("export_spans", "selection")
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        code=code("export_spans"),
        script=script("export_spans"),
        settings=lambda w: settings_of(
            experiment=config["experiment"],
            tokenizers=sorted(config["tokenizers"]),
            **influence.described(w.selection),
        ),
        corpus=lambda w: experiment.corpus_of(PROXY),
        selection=lambda w: influence.selection_folder(w.selection),
        folder=subpath(output.spans, parent=True),
    message:
        "export the spans of the selection {wildcards.selection}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --corpus {params.corpus:q}"
        " --documents {input.documents:q} --selection {params.selection:q}"
        " --scores {input.scores:q} --output {params.folder:q} > {log:q} 2>&1"


rule export_labels:
    input:
        documents=layout.documents,
        spans=f"{layout.export()}/spans.parquet",
        tokenizer=layout.tokenizer_file(),
    output:
        f"{layout.export()}/labels/{{tokenizer}}.parquet",
    log:
        layout.log("export_labels", "selection", "tokenizer"),
    benchmark:
        layout.benchmark("export_labels", "selection", "tokenizer")
    retries: 1
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        code=code("export_labels"),
        script=script("export_labels"),
        tokenizer=subpath(input.tokenizer, parent=True),
    message:
        "export the selection {wildcards.selection} as labels of {wildcards.tokenizer}"
    shell:
        "python {params.script:q} --documents {input.documents:q} --spans {input.spans:q}"
        " --tokenizer {params.tokenizer:q} --output {output:q} > {log:q} 2>&1"


rule export:
    input:
        [
            f"{layout.export(selection)}/{name}"
            for selection in config["influence"]["selections"]
            for name in (
                "README.md",
                *(f"labels/{tokenizer}.parquet" for tokenizer in config["tokenizers"]),
            )
        ],
