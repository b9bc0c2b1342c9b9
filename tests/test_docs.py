"""Documents name what there is, all of it."""

import re
from pathlib import Path

import attrs
import pytest
from safetensors.torch import load_file

from jtcore import hooks, recipe
from jtcore.data import Data
from jtcore.noise import SharedNoise, Times
from jtcore.scales import ScaleSchedule
from jtcore.settings import DeepSpeed, EngineSettings, Memory

ROOT = Path(__file__).parent.parent
RECIPES = (ROOT / "docs" / "recipes.md").read_text()
TABLES = (
    Data,
    recipe.Stage,
    recipe.Branch,
    recipe.LossTerm,
    Times,
    SharedNoise,
    recipe.Sampling,
    recipe.NoisePrior,
    recipe.SampledReference,
    recipe.Previews,
    ScaleSchedule,
    recipe.Validation,
    EngineSettings,
    Memory,
    DeepSpeed,
    recipe.Checkpoints,
    recipe.PluginFolders,
    recipe.Recipe,
)
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("cls", TABLES, ids=lambda cls: cls.__name__)
def test_every_key_of_a_recipe_is_in_the_reference(cls):
    keys = {field.name for field in attrs.fields(cls)} - {"loss"}  # whose keys are the plugin's
    missing = {key for key in keys if not re.search(rf"[`.\[]{key}[`.\]]", RECIPES)}
    assert missing == set()


def test_every_hook_is_in_the_plugin_guide():
    guide = (ROOT / "docs" / "plugins.md").read_text()
    names = {name for name in vars(hooks) if name.startswith("jt_")}
    assert {name for name in names if f"`{name}(" not in guide} == set()


def test_the_plugins_of_the_guide_train(table, jt_run, tmp_path):
    guide = (ROOT / "docs" / "plugins.md").read_text()
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, code in zip(("huber", "gain"), _python(guide), strict=True):
        (folder / f"{name}.py").write_text(code)
    table["adapter"]["joint"] = {"kind": "gain", "targets": "visual"}
    table["stage"]["joint"]["branch"]["joint"]["losses"] = {"all": {"kind": "huber", "delta": 2}}
    run = jt_run(table, "--plugin-folder", str(folder))
    trained = load_file(run / "adapters" / "joint.safetensors")
    assert trained and all(gain != 0 for gain in trained.values())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (document.parent / link).exists()] == []


def test_every_make_target_that_documents_name_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {m for d in DOCUMENTS for m in re.findall(r"make ([a-z-]+)", _code(d.read_text()))}
    assert named - targets == set()


def _code(text: str) -> str:
    """What stands in fences or back-quotes."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def _python(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)
