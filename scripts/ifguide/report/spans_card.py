"""The card of an exported selection, with the metadata by which `datasets` finds its files."""

from huggingface_hub import DatasetCardData

from ifguide.report.templating import render


def spans_card(settings: dict, record: dict) -> str:
    """Return the card as Markdown.

    settings: `name` of the selection, its `entry` and that of its `direction` in the config, the
    `experiment`, and names of the `tokenizers` with label masks. record: what `spans.json` holds.
    """
    files = {"spans": "spans.parquet"}
    files |= {f"labels_{name}": f"labels/{name}.parquet" for name in settings["tokenizers"]}
    metadata = DatasetCardData(
        pretty_name=f"Selected spans: {settings['name']} of {settings['experiment']}",
        tags=["ifguide", "data-attribution", "toxicity"],
        configs=[
            {"config_name": name, "data_files": [{"split": "train", "path": path}]}
            | ({"default": True} if name == "spans" else {})
            for name, path in files.items()
        ],
        # `datasets` caches a folder by what its card says, not by what its files hold.
        dataset_info=[
            {"config_name": name, "description": f"{settings['name']} {record['spans_sha256']}"}
            for name in files
        ],
    )
    return render("spans_card.md", metadata=metadata.to_yaml(), settings=settings, record=record)
