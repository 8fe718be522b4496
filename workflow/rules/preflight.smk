# Everything that the config names is opened: the same as at the start of every run, and no more.


rule preflight:
    # Neither an output nor a benchmark, so that it runs whenever it is asked for.
    log:
        layout.log("preflight"),
    localrule: True
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(30),
    params:
        script=script("preflight"),
        settings=always(**config),
    message:
        "open what the config names"
    shell:
        "python {params.script:q} --settings {params.settings:q} > {log:q} 2>&1 && cat {log:q}"
