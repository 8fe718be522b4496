# What lasts of methods once their weights are given away: only where the config has `lasting`.
#
# in:   models/, corpus/{tokenizer}/held_out/, texts/, prompts/, classifiers/
# out:  relearning/{model}/{method}/{seed}.json, loss_curves/{model}/{seed}.json,
#       lasting.csv, pages/lasting.html


rule measure_relearning:
    input:
        model=lambda w: methods.model_files(w.model, w.method, w.seed),
        held_out=lambda w: experiment.held_out_files(w.model),
        texts=lambda w: [layout.texts(name) for name in lasting.texts],
        prompts=lambda w: layout.prompts(lasting.benchmark),
        judges=lambda w: judges.ready_of(LEADING),
    output:
        measured=layout.relearning(),
    log:
        layout.log("measure_relearning", "model", "method", "seed"),
    benchmark:
        layout.benchmark("measure_relearning", "model", "method", "seed")
    wildcard_constraints:
        method=names(lasting.relearned),
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(6000),
        runtime=growing(240),
        gpu=0,
    params:
        code=code("measure_relearning"),
        script=script("measure_relearning"),
        settings=lambda w: lasting.relearning_settings(),
        model=lambda w: methods.model_directory(w.model, w.method, w.seed),
        held_out=lambda w: experiment.held_out(w.model),
    message:
        "how fast {wildcards.model}/{wildcards.method} relearns toxic text"
    shell:
        "python {params.script:q} --settings {params.settings:q} --model {params.model:q}"
        " --held-out {params.held_out:q} --texts {input.texts:q} --prompts {input.prompts:q}"
        " --model-name {wildcards.model:q} --method {wildcards.method:q}"
        " --training-seed {wildcards.seed:q} --output {output.measured:q} > {log:q} 2>&1"


rule measure_loss_curve:
    input:
        models=lambda w: [
            path
            for model in lasting.curve_models(w.model)
            for path in methods.model_files(model, UNCENSORED, w.seed)
        ],
        held_out=lambda w: experiment.held_out_files(w.model),
    output:
        curve=layout.loss_curve(),
    log:
        layout.log("measure_loss_curve", "model", "seed"),
    benchmark:
        layout.benchmark("measure_loss_curve", "model", "seed")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=0,
    params:
        code=code("measure_loss_curve"),
        script=script("measure_loss_curve"),
        models=lambda w: [
            f"{model}={layout.model(model, UNCENSORED, w.seed)}"
            for model in lasting.curve_models(w.model)
        ],
        held_out=lambda w: experiment.held_out(w.model),
    message:
        "losses of uncensored models on toxic text, for {wildcards.model}"
    shell:
        "python {params.script:q} --models {params.models:q} --held-out {params.held_out:q}"
        " --model-name {wildcards.model:q} --training-seed {wildcards.seed:q}"
        " --output {output.curve:q} > {log:q} 2>&1"


rule tabulate_lasting:
    input:
        relearning=lasting.relearning,
        curves=lasting.curves,
    output:
        table=layout.shown("lasting.csv"),
        page=report(
            layout.shown("pages/lasting.html"),
            caption="../report/lasting.rst",
            category=CATEGORIES["changed"],
            labels={"shows": "what lasts when the weights are given away"},
        ),
    log:
        layout.shown_log("tabulate_lasting"),
    benchmark:
        layout.shown_benchmark("tabulate_lasting")
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("tabulate_lasting"),
        script=script("tabulate_lasting"),
        settings=always(decoded=lasting.decoded),
        curves=lambda w, input: ["--curves", *input.curves] if input.curves else [],
    message:
        "tabulate what lasts"
    shell:
        "python {params.script:q} --settings {params.settings:q}"
        " --relearning {input.relearning:q} {params.curves:q} --page {output.page:q}"
        " --output {output.table:q} > {log:q} 2>&1"
