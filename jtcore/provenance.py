"""Provenance: what a run was asked, what it ran on, and whether that is still the same."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs

from jtcore.clips import mask_of
from jtcore.data import Data, caption_file, reference_files
from jtcore.errors import JtError
from jtcore.evaluation.references import metrics_of
from jtcore.files import sha256
from jtcore.plugins import Plugins
from jtcore.recipe import Recipe
from jtcore.structure import Component

PACKAGES = ("jtcore", "torch", "diffusers", "transformers", "attrs", "pluggy", "av", "Pillow")


def circumstances(
    path: Path, settings: Sequence[str], recipe: Recipe, plugins: Plugins
) -> dict[str, Any]:
    """What a reader of the results, and a resumed run, need to know of where they came from."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "recipe": str(path),
        "settings": list(settings),
        "directory": str(Path.cwd()),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": recipe.seed,
        "git": {"recipe": _commit(path), "jtcore": _commit(Path(__file__))},
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "plugins": [attrs.asdict(origin) for origin in plugins.origins.values()],
        "broken_plugins": [attrs.asdict(broken) for broken in plugins.broken],
        "backbone": backbone_identity(recipe.backbone),
        "image_encoder": encoder_identity(recipe),
        **_digests(recipe),
    }


def backbone_identity(backbone: Component) -> dict[str, str]:
    """Hashes of weights, options and code of each component."""
    spec = backbone.spec
    return {
        "denoiser": spec.denoiser_identity(),
        "text": spec.text_identity(),
        "codec": spec.codec_identity(),
    }


def encoder_identity(recipe: Recipe) -> str | None:
    """A hash of weights, options and code of the image encoder, if there is one."""
    return recipe.image_encoder and recipe.image_encoder.spec.identity()


def refuse_changes(then: Mapping[str, Any], recipe: Recipe) -> None:
    """A resumed run must stand on what it began with. Raises JtError naming what is not."""
    cure = "has changed since this run began; put it back, or begin a new run"
    now = backbone_identity(recipe.backbone)
    changed = [
        f"backbone: its {part} {cure}" for part in now if now[part] != then["backbone"][part]
    ]
    if encoder_identity(recipe) != then.get("image_encoder"):
        changed.append(f"image_encoder: it {cure}")
    for family, digests in _digests(recipe).items():
        for name, found in digests.items():
            was = then.get(family, {}).get(name, {})
            odd = [f for f in sorted(found.keys() | was.keys()) if found.get(f) != was.get(f)]
            changed += [f"{family}.{name}: {file} {cure}" for file in odd]
    if changed:
        raise JtError(changed)


def changed_plugins(then: Sequence[Mapping[str, str]], plugins: Plugins) -> Iterator[str]:
    """Names of plugins that are not what a run began with."""
    now = {origin.name: origin.sha256 for origin in plugins.origins.values()}
    return (old["name"] for old in then if now.get(old["name"]) != old["sha256"])


def _digests(recipe: Recipe) -> dict[str, dict[str, dict[str, str]]]:
    """Of data, metrics and samples, by name and path: the hash of each file that is read."""
    files = {
        "data": {name: _files(data) for name, data in recipe.used_data.items()},
        "metric": {
            name: getattr(metric.spec, "files", tuple)()
            for name, metric in metrics_of(recipe).items()
        },
    }
    if recipe.initial:
        files["initial"] = {name: [Path(path)] for name, path in recipe.initial.items()}
    if recipe.sample and recipe.sample.noise_prior:
        files["sample"] = {"noise_prior": [Path(recipe.sample.noise_prior.video)]}
    if recipe.sample and recipe.sample.reference:
        picture = Path(recipe.sample.reference.picture)
        files["sample"] = files.get("sample", {}) | {"reference": [picture]}
    return {
        family: {name: {str(path): sha256(path) for path in paths} for name, paths in each.items()}
        for family, each in files.items()
    }


def _files(data: Data) -> Iterator[Path]:
    """Pictures and videos, and the captions, masks and references that belong to them."""
    if data.reference_picture is not None:
        yield Path(data.reference_picture)
    for path in reference_files(data):
        yield path
        if data.prompt is None:
            yield caption_file(path)
        if data.masks is not None:
            yield mask_of(path, data)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(file: Path) -> str | None:
    """The commit that a tracked file is checked out from, with `-dirty` where anything differs."""
    if _git(file, "ls-files", "--error-unmatch", file.name) is None:
        return None  # a repository around an installation says nothing of it
    return _git(file, "describe", "--always", "--dirty", "--abbrev=40")


def _git(file: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(file.absolute().parent), *arguments]
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
