{# Snakemake's report opens with the workflow's description and the job graph, and no option of it
   changes that. This draws the same application with the result on its first screen instead. The
   description and the graph stay one screen, behind the entry "Workflow": within it, the graph cannot
   be moved to the end. Where the page is not among the results, the report opens as it would. #}
class Opening extends App {
    constructor(props) {
        super(props);
        const path = {{ path | tojson }};
        if (path in results) {
            const contentPath = results[path].data_uri;
            this.state = { ...this.state, content: "html", contentPath, resultPath: path };
        }
    }
}
root.render(e(Opening));
