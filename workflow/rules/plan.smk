# What an experiment costs, before and after it has run. No result depends on it.


rule plan:
    input:
        code=code("plan.py"),
        jobs=code("list_jobs.py"),
    # Neither an output nor a benchmark, so that it runs whenever it is asked for: what it reads is
    # whatever is there, the measured times above all.
    log:
        f"{LOGS}/plan.log",
    localrule: True
    conda:
        "../../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=always(**config),
        facts=always(**planned_facts()),
        snakefile=os.path.relpath(SOURCE / "workflow" / "Snakefile"),
        folder=RESULTS,
    message:
        "plan {params.folder}"
    shell:
        "python {input.code[0]:q} --settings {params.settings:q} --facts {params.facts:q}"
        " --snakefile {params.snakefile:q} --output {params.folder:q} > {log:q} 2>&1 && cat {log:q}"
