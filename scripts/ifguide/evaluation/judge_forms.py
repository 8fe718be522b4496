"""The forms of a judge: which one the settings of a config entry name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifguide.data.file_lists import from_arguments
from ifguide.evaluation.judge import Judge
from ifguide.files.kept import files_sha256

# What a library reads of a judge's folder, and which of such files only tell about it.
READ = {".json", ".txt", ".model", ".safetensors", ".ckpt"}
TOLD = {"quality.json", "calibration.json"}


def open_judge(name: str, settings: Mapping[str, Any]) -> Judge:
    """Return the judge of a config entry `classifiers.<name>`.

    settings: one of {"checkpoint": file of a Detoxify model}, {"directory": of a sequence
    classifier, "toxic_label": index or name of its toxic class}, {"planted": kind of hostility} and
    {"words": arguments that stand for files}. What a judge reads is loaded here, and no library
    that it does not need is imported. Raises InputError where files are missing or refused.
    """
    match settings:
        case {"checkpoint": path}:
            from ifguide.evaluation.detoxify_judge import DetoxifyJudge

            return DetoxifyJudge(path, key=f"classifiers.{name}")
        case {"directory": path, "toxic_label": label}:
            from ifguide.evaluation.sequence_judge import SequenceJudge

            return SequenceJudge(path, label, key=f"classifiers.{name}")
        case {"planted": kind}:
            from ifguide.evaluation.planted_judge import PlantedJudge

            return PlantedJudge(kind)
        case {"words": files}:
            from ifguide.data.filtering import read_words
            from ifguide.evaluation.word_judge import WordJudge

            return WordJudge(read_words(map(Path, from_arguments(files))))
    raise ValueError(f"no judge has the settings {settings}")


def judge_identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells a judge from others, wherever it lies: hashes of its files, its settings.

    settings: as of `open_judge`.
    """
    match settings:
        case {"checkpoint": path}:
            return {"files": files_sha256(_files_of(Path(path).parent))}
        case {"directory": path, "toxic_label": label}:
            return {"files": files_sha256(_files_of(Path(path))), "toxic_label": label}
        case {"words": files}:
            return {"words": list(files_sha256(map(Path, from_arguments(files))).values())}
    return dict(settings)


def _files_of(directory: Path) -> list[Path]:
    files = directory.glob("[!.]*")
    return [path for path in files if path.suffix in READ and path.name not in TOLD]
