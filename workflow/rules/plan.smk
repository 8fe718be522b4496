# What an experiment costs, before and after it has run. No result depends on it.


rule plan:
    # Neither an output nor a benchmark, so that it runs whenever it is asked for: what it reads is
    # whatever is there, the measured times above all.
    log:
        layout.log("plan"),
    localrule: True
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        script=script("plan"),
        settings=always(**config),
        facts=lambda w: settings_of(**parts.planned_facts()),
        snakefile=os.path.relpath(SOURCE / "workflow" / "Snakefile"),
        folder=layout.root,
    message:
        "plan {params.folder}"
    shell:
        "python {params.script:q} --settings {params.settings:q} --facts {params.facts:q}"
        " --snakefile {params.snakefile:q} --output {params.folder:q} > {log:q} 2>&1 && cat {log:q}"
