"""What comes from outside stays data: no code in models, pickles, names, paths or texts runs."""

import ast
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, GPTNeoXForSequenceClassification

from conftest import AWKWARD, TINY, copy_repository, error_line, run_snakemake
from ifguide.data.corpus import train_tokenizer
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.evaluation.detoxify_judge import DetoxifyJudge
from ifguide.evaluation.sequence_judge import SequenceJudge
from ifguide.files.artifacts import read_jsonl
from ifguide.files.checksums import file_sha256
from ifguide.models.loading import load_model
from ifguide.report.report_pages import tokens_page
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.experiment import Config

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = Path("results/tiny")
SOURCES = sorted(
    [*(REPOSITORY / "scripts").rglob("*.py"), *(REPOSITORY / "workflow").rglob("*.smk")]
)


def calls(path: Path):
    """Every call in a file, as (dotted name, keyword arguments as written, line)."""
    text = path.read_text("utf-8")
    if path.suffix == ".smk":
        # Rules are no Python; the functions, all in common.smk and common/, are.
        text = text.split("\nwildcard_constraints:")[0]
        if "common" not in (path.stem, path.parent.name):
            return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            yield ast.unparse(node.func), keywords, f"{path.name}:{node.lineno}"


ALL_CALLS = [call for path in SOURCES for call in calls(path)]


def named(*endings: str):
    return [call for call in ALL_CALLS if call[0].endswith(endings)]


def test_nothing_is_unpickled_but_by_the_restricted_unpickler():
    loads = named("torch.load", "load_state_dict_from_url")
    assert len(loads) == 2
    assert {keywords.get("weights_only") for _, keywords, _ in loads} == {"True"}
    arrays = named("np.load", "numpy.load", "np.save")
    assert arrays and {keywords.get("allow_pickle") for _, keywords, _ in arrays} == {"False"}
    unpickling = {"pickle.load", "pickle.loads", "joblib.load", "pd.read_pickle", "shelve.open"}
    assert [call for call in ALL_CALLS if call[0] in unpickling] == []


def test_models_are_loaded_as_local_safetensors_without_their_code():
    loads = named(".from_pretrained")
    assert len(loads) >= 4
    for name, keywords, place in loads:
        assert keywords.get("local_files_only") == "True", place
        if name.startswith("Auto"):
            assert keywords.get("trust_remote_code") == "False", place
        if "okenizer" not in name and "Config" not in name:
            assert keywords.get("use_safetensors") == "True", place


def test_yaml_is_loaded_safely_and_no_text_is_run():
    forbidden = {"yaml.unsafe_load", "yaml.full_load", "eval", "exec", "os.system"}
    loaders = {call[1].get("Loader") for call in named("yaml.load")}
    assert loaders <= {"yaml.CSafeLoader"}
    assert [call for call in ALL_CALLS if call[0] in forbidden] == []
    assert [call for call in ALL_CALLS if call[1].get("shell") == "True"] == []


def test_every_value_in_a_shell_command_is_quoted():
    for path in (REPOSITORY / "workflow/rules").glob("*.smk"):
        for line in path.read_text("utf-8").splitlines():
            if (
                line.startswith('        "')
                and "{" in line
                and ("python {" in line or "--" in line)
            ):
                for field in line.split("{")[1:]:
                    inner = field.split("}")[0]
                    if inner.partition(".")[0] in ("input", "output", "params", "wildcards"):
                        assert inner.endswith(":q"), f"{path.name}: {line.strip()}"


class RunsWhenUnpickled:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_checkpoint_with_code_is_refused_before_it_runs(tmp_path):
    marker = tmp_path / "it-ran"
    torch.save({"config": {}, "state_dict": RunsWhenUnpickled(marker)}, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match="model.ckpt.*not loaded"):
        DetoxifyJudge(tmp_path / "model.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(RunsWhenUnpickled(marker)))
    with pytest.raises(InputError, match="plain.ckpt"):
        DetoxifyJudge(tmp_path / "plain.ckpt")
    assert not marker.exists()


@pytest.fixture
def model_with_code(tmp_path) -> Path:
    return write_model_with_code(tmp_path / "model", tmp_path / "it-ran", GPTNeoXForCausalLM)


def write_model_with_code(folder: Path, marker: Path, architecture: type) -> Path:
    """A model directory whose configuration asks for classes in a Python file beside it."""
    config = GPTNeoXConfig(
        vocab_size=300,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    architecture(config).save_pretrained(folder)
    train_tokenizer(["some text"], 300).save_pretrained(folder)
    (folder / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
        "from transformers import GPTNeoXConfig as Config, GPTNeoXForCausalLM as Model\n"
        "from transformers import PreTrainedTokenizerFast as Tokenizer\n",
        encoding="utf-8",
    )
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["auto_map"] = {
        "AutoConfig": "evil.Config",
        "AutoModelForCausalLM": "evil.Model",
        "AutoModelForSequenceClassification": "evil.Model",
    }
    config["trust_remote_code"] = True
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    tokenizer["auto_map"] = {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


@pytest.mark.parametrize("model_type", ["gpt_neox", "of_its_own"])
@pytest.mark.parametrize(
    ("architecture", "load"),
    [
        (GPTNeoXForCausalLM, load_model),
        (GPTNeoXForCausalLM, load_tokenizer),
        (GPTNeoXForSequenceClassification, lambda path: SequenceJudge(path, 1)),
    ],
    ids=["model", "tokenizer", "judge"],
)
def test_code_in_a_model_directory_is_not_run(tmp_path, model_type, architecture, load):
    marker = tmp_path / "it-ran"
    folder = write_model_with_code(tmp_path / "model", marker, architecture)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["model_type"] = model_type
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    # A known architecture is loaded with the library's own code, an unknown one is refused.
    try:
        load(folder)
    except (InputError, ValueError):
        assert model_type == "of_its_own"
    assert not marker.exists()


def test_weights_in_a_pickle_are_refused(model_with_code):
    (model_with_code / "model.safetensors").unlink()
    torch.save({}, model_with_code / "pytorch_model.bin")
    with pytest.raises((InputError, OSError), match="safetensors"):
        load_model(model_with_code)


def find_mistake(config: dict) -> str | None:
    """What a mistaken config is told, None where it has none."""
    try:
        with_defaults(Config, config)
    except InputError as error:
        return str(error)
    return None


NAMES = ["../outside", "a/b", "/etc", "..", "a b", "$(touch x)", "a;b", "-rf", "", "a\n"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_in_the_config_can_lead_out_of_the_results_folder(name):
    tiny = yaml.safe_load((REPOSITORY / TINY).read_text("utf-8"))
    assert find_mistake(tiny) is None
    assert find_mistake(tiny | {"experiment": name}).startswith("experiment")
    named_entries = ["tokenizers", "queries", "models", "methods", "benchmarks"]
    for section in named_entries:
        entry = next(iter(tiny[section].values()))
        wrong = tiny | {section: {**tiny[section], name: entry}}
        assert find_mistake(wrong).startswith(section), section
    for section in ("directions", "selections"):
        entries = tiny["influence"][section]
        wrong = {**entries, name: next(iter(entries.values()))}
        influence = tiny["influence"] | {section: wrong}
        found = find_mistake(tiny | {"influence": influence})
        assert found.startswith(f"influence.{section}"), section
    download = {"url": "https://example.org/a", "sha256": "0" * 64, "path": name}
    if name.startswith(("/", "..")) or name.endswith("\n") or not name:
        wrong = tiny | {"downloads": {"file": download}}
        assert find_mistake(wrong).startswith("downloads.file.path")


@pytest.mark.parametrize("ending", ["", "\n", "\n\n", "\nb", "\r"])
def test_no_line_break_passes_where_the_schema_gives_a_pattern(ending):
    tiny = yaml.safe_load((REPOSITORY / TINY).read_text("utf-8"))
    download = {"url": "https://example.org/a", "sha256": "0" * 64, "path": "a.txt"}
    hub = {"hub": "owner/name", "revision": "0" * 40}
    for part, key, entry in [
        ({"downloads": {"file": download | {"sha256": f"{'0' * 64}{ending}"}}}, "sha256", "file"),
        ({"tokenizers": {"bpe": hub | {"hub": f"owner/name{ending}"}}}, "hub", "bpe"),
        ({"tokenizers": {"bpe": hub | {"hub": f"name{ending}"}}}, "hub", "bpe"),
        ({"tokenizers": {"bpe": hub | {"revision": f"{'0' * 40}{ending}"}}}, "revision", "bpe"),
    ]:
        mistake = find_mistake(tiny | part)
        expected = f"{next(iter(part))}.{entry}.{key}: "
        assert mistake is None if not ending else mistake.startswith(expected), mistake
    mistake = find_mistake(tiny | {"plan": {"records": {f"queries.a{ending}": 1}}})
    assert mistake is None if not ending else mistake.startswith("plan.records: "), mistake


def test_awkward_folder_and_file_names_are_only_names(finished, tmp_path):
    """Code, config and every kind of text file in such a folder; test_faults.py runs it all."""
    folder = tmp_path / AWKWARD
    repository = copy_repository(folder / "repository")
    texts = shutil.copytree(finished / RESULTS / "planted", folder / "te xts")
    config = (repository / TINY).read_text("utf-8").replace("{planted}", "{data_dir}")
    overlay = {"data_dir": str(texts)}
    (folder / "its config.yaml").write_text(f"{config}\n{yaml.safe_dump(overlay)}", "utf-8")
    same = [
        "corpus/bpe/tokens/shard-00001.npy",
        "corpus/bpe/filtered/word_filter/tokens/shard-00001.npy",
        "passages/lambada.jsonl",
        "pairs/dpo.jsonl",
    ]
    placed = ["queries/toxic.jsonl", "prompts/toxigen.jsonl"]
    ran = run_snakemake(
        folder,
        *(RESULTS / name for name in [*same, *placed]),
        *("--snakefile", repository / "workflow/Snakefile"),
        *("--configfile", "its config.yaml", "--cores", "1"),
    )
    assert ran.returncode == 0, ran.stdout
    for name in same:
        found, wanted = (file_sha256(top / RESULTS / name) for top in (folder, finished))
        assert found == wanted, name
    for name in placed:
        found, wanted = (read_jsonl(top / RESULTS / name) for top in (folder, finished))
        assert all(str(texts) in record.pop("where") for record in found)
        assert found == [{k: v for k, v in record.items() if k != "where"} for record in wanted]
    assert not list(tmp_path.rglob("it-ran"))


def test_a_config_cannot_load_objects(tmp_path):
    (tmp_path / "evil.yaml").write_text(
        f"experiment: !!python/object/apply:pathlib.Path.touch [{tmp_path}/it-ran]\n", "utf-8"
    )
    ran = run_snakemake(
        REPOSITORY, "--dry-run", "--cores", "1", "--configfile", tmp_path / "evil.yaml"
    )
    assert ran.returncode != 0
    assert not (tmp_path / "it-ran").exists()


def test_pages_run_only_their_own_script():
    """The policy names each script and style by its hash, so that none in a text can run."""
    import base64
    import hashlib
    import re

    html = tokens_page([])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert "unsafe" not in policy and "default-src 'none'" in policy
    for element in ("script", "style"):
        content = re.search(rf"<{element}>(.*?)</{element}>", html, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy


def test_an_unknown_name_is_one_line(finished):
    overlay = finished.parent / "names.yaml"
    overlay.write_text("experiment: ../outside\n", encoding="utf-8")
    ran = run_snakemake(finished, "--dry-run", "--cores", "1", "--configfile", TINY, overlay)
    assert error_line(ran.stdout).startswith(
        "error: config: experiment: '../outside' is not a name"
    )
