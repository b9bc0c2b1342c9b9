"""The commands `jt-*`: parse first, import afterwards."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jtcore.options import (
    FITS,
    MEASURED,
    TOO_LARGE,
    add_metrics,
    add_plugin_folder,
    add_quiet,
    add_set,
    guarded,
    make_parser,
)


def run(arguments: Sequence[str] | None = None) -> int:
    """`jt-run`: train, sample and evaluate what a recipe says."""
    parser = make_parser("jt-run", "Train, sample and evaluate what a recipe says.")
    parser.add_argument("recipe", nargs="?", help="a recipe or grid: its path or shipped name")
    _add_preset(parser)
    add_set(parser, "change the recipe, such as stage.joint.steps=50; may be repeated")
    parser.add_argument("--check", action="store_true", help="check everything, train nothing")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="list a grid's runs with what they will take, and train nothing",
    )
    parser.add_argument(
        "--tflops",
        type=float,
        help="of the device, for times of --dry-run; default: 100, and without a GPU what this"
        " machine computes",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default: runs/RECIPE-NNN; of a grid runs/GRID, which is brought up to date",
    )
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR", help="continue a run or grid")
    parser.add_argument(
        "--follow", action="store_true", help="of a grid on a cluster: wait for its runs"
    )
    add_plugin_folder(parser)
    add_quiet(parser)
    given = parser.parse_args(arguments)
    if (given.recipe is None) == (given.resume is None):
        parser.error("name either a recipe or --resume RUN_DIR")
    changed = given.set or given.preset or given.plugin_folder
    if given.tflops is not None and not (given.dry_run and given.tflops > 0):
        parser.error("--tflops is a number above 0, of --dry-run")
    if given.dry_run and given.check:
        parser.error("--dry-run checks everything; name it or --check")
    if given.resume and (changed or given.out or given.check or given.dry_run):
        parser.error(
            "--resume continues what is there as it is, and takes --quiet and --follow alone"
        )

    def work() -> None:
        from jtcore import launch

        if given.resume:
            launch.proceed(given.resume, given.quiet, given.follow)
            return
        asked = launch.Asked(given.recipe, _settings(given), given.plugin_folder, given.out)
        if given.check:
            launch.check_only(asked)
        elif given.dry_run:
            launch.dry_run(asked, given.tflops)
        else:
            launch.start(asked, given.quiet, given.follow)

    return guarded(work)


def plugins(arguments: Sequence[str] | None = None) -> int:
    """`jt-plugins`: list plugins, or show one."""
    parser = make_parser(
        "jt-plugins", "List plugins, or show one with its options and documentation."
    )
    parser.add_argument(
        "kind", nargs="?", help="such as pocket, or backbones.pocket where it is not unique"
    )
    add_plugin_folder(parser)
    given = parser.parse_args(arguments)

    def work() -> None:
        from jtcore import catalogue

        catalogue.show(given.kind, given.plugin_folder)

    return guarded(work)


def plan(arguments: Sequence[str] | None = None) -> int:
    """`jt-plan`: what a recipe will need."""
    parser = make_parser(
        "jt-plan", "Tell what a recipe will need: memory, arithmetic, disk. No GPU is needed.", FITS
    )
    parser.add_argument("recipe", help="a recipe: its path or shipped name")
    parser.add_argument("--gpu", metavar="SIZE", help="memory of the card, such as 24GB")
    parser.add_argument(
        "--tflops", type=float, default=100.0, help="of the card in use, for times; default 100"
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="among which DeepSpeed divides; default 1"
    )
    _add_preset(parser)
    add_set(parser, "change the recipe, such as data.motion.frames=25; may be repeated")
    parser.add_argument("--json", action="store_true", help="print a table for programs")
    add_plugin_folder(parser)
    given = parser.parse_args(arguments)
    fitting: list[bool] = []

    def work() -> None:
        from jtcore.planner import command

        given.set = _settings(given)
        fitting.append(command.plan(given))

    return guarded(work) or (0 if all(fitting) else TOO_LARGE)


def sample(arguments: Sequence[str] | None = None) -> int:
    """`jt-sample`: generate from a finished run or from adapter files."""
    parser = make_parser("jt-sample", "Generate videos from a run, or from adapter files.")
    parser.add_argument(
        "source",
        nargs="+",
        help="run directories and adapter files (.safetensors); NAME=PATH gives another name; or"
        " one recipe, whose backbone is sampled alone",
    )
    parser.add_argument("--prompt", action="append", required=True, help="may be repeated")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where videos go")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", action="append", type=int, help="may be repeated; default 0")
    seeds.add_argument("--count", type=int, metavar="N", help="seeds from 0 to N - 1")
    parser.add_argument(
        "--captions", action="store_true", help="write each prompt beside its video, as data has it"
    )
    _add_leading(parser)
    _add_walk(parser)
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="DIR",
        help="write what adapters say in each step, such as gates: a table, and a drawing of each",
    )
    _add_preset(parser)
    add_set(parser, "change the backbone or engine, such as backbone.weights=/models/cogvideox")
    add_plugin_folder(parser)
    add_quiet(parser)
    given = parser.parse_args(arguments)

    def work() -> None:
        from jtcore import regenerate

        given.set = _settings(given)
        regenerate.sample(given)

    return guarded(work)


def convert(arguments: Sequence[str] | None = None) -> int:
    """`jt-convert`: adapter files into the layouts of other tools, and out of them."""
    parser = make_parser(
        "jt-convert", "Convert adapter files to and from the layouts of other tools."
    )
    parser.add_argument("source", type=Path, help="an adapter file, of jtcore or of another tool")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--to", metavar="FORMAT", help="such as diffusers or kohya; see jt-plugins")
    way.add_argument(
        "--from", dest="origin", metavar="FORMAT", help="what the file is; see jt-plugins"
    )
    parser.add_argument("--backbone", metavar="KIND", help="what the adapter is of, with --from")
    parser.add_argument("--out", type=Path, required=True, metavar="NAME.safetensors")
    add_set(
        parser,
        "an option of the backbone or format, such as backbone.weights=/models/cogvideox; with --to"
        " also of the adapter, such as adapter.member=0 of a bank",
    )
    add_plugin_folder(parser)
    add_quiet(parser)
    given = parser.parse_args(arguments)
    if (given.backbone is None) == (given.to is None):
        parser.error("--from needs a --backbone; with --to, the adapter file has it")

    def work() -> None:
        from jtcore import convert

        convert.convert(given)

    return guarded(work)


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """`jt-eval`: measure videos."""
    parser = make_parser(
        "jt-eval", "Measure the videos of runs, or of any folder, and compare models.", MEASURED
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN_DIR", help="finished runs, or grids of them"
    )
    parser.add_argument(
        "--videos", type=Path, metavar="DIR", help="a folder of videos, or of a folder per model"
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="one a line, in the order of the videos' names; default: as the names say",
    )
    parser.add_argument(
        "--subject", metavar="DIR", help="pictures of the subject; default: a run's"
    )
    parser.add_argument("--motion", metavar="DIR", help="clips of the motion; default: a run's")
    _add_measuring(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder evaluation of what is measured"
    )
    add_plugin_folder(parser)
    add_quiet(parser)
    given = parser.parse_args(arguments)
    if bool(given.runs) == (given.videos is not None):
        parser.error("name either run directories or --videos DIR")
    if given.prompts and not given.videos:
        parser.error("--prompts is of --videos; a run knows its prompts")

    def work() -> None:
        from jtcore.evaluation import command

        command.evaluate(given)

    return guarded(work)


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    """By what videos are measured."""
    parser.add_argument(
        "--suite",
        metavar="NAME",
        help="metrics: the path of a TOML file or a shipped name, such as offline; default: a run's"
        " own, or general",
    )
    add_set(parser, "change the suite, such as metric.clip_text.batch=4; may be repeated")
    add_metrics(parser)
    parser.add_argument(
        "--average-score", action="store_true", help="the mean of all means that the suite says"
    )
    parser.add_argument(
        "--strict", action="store_true", help="a metric that lacks something is a mistake"
    )


def study(arguments: Sequence[str] | None = None) -> int:
    """`jt-study`: let people compare videos blindly, and count what they say."""
    parser = make_parser(
        "jt-study",
        "Make a page on which people compare videos of two or more methods, whose names it does not"
        " know; later, score their answers.",
    )
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="DIR",
        help="run directories, of which what each has learned is compared; or one, with its base"
        " model; or folders of videos; NAME=DIR names a method",
    )
    _add_study(parser)
    parser.add_argument(
        "--score", nargs="+", type=Path, metavar="FILE", help="count the answers in these files"
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="the key.json, with --score")
    parser.add_argument("--json", action="store_true", help="print JSON, with --score")
    given = parser.parse_args(arguments)
    if bool(given.sources) == bool(given.score):
        parser.error("name either what is compared or --score FILE")
    if given.score and not given.key:
        parser.error("--score needs the --key of the study")
    making = [name for name in STUDY if getattr(given, name) != parser.get_default(name)]
    if given.score and making:
        parser.error(f"--score takes --key and --json, and no --{making[0]}")
    if given.sources and (given.key or given.json):
        parser.error("--key and --json are of --score")
    if given.sources and not given.out:
        parser.error("name a folder for the study with --out DIR")
    if given.pairs is not None and given.pairs < 1:
        parser.error(f"--pairs: expected 1 or more, got {given.pairs}")

    def work() -> None:
        if given.score:
            from jtcore.pages import score

            print(score.command(given.score, given.key, given.json))
        else:
            from jtcore.pages import study

            page, key = study.make(given)
            print(f"  {page}  for raters\n  {key}  for you alone: it says who made which")

    return guarded(work)


STUDY = (
    *("out", "prompts", "subject", "motion", "questions", "ties", "pairs", "title", "seed", "say"),
)


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="where study.html and key.json go")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="of folders of videos, as in jt-eval"
    )
    for name, told in (("subject", "pictures"), ("motion", "clips")):
        parser.add_argument(
            f"--{name}", metavar="DIR", help=f"{told} that are shown; default: the first run's"
        )
    parser.add_argument(
        "--questions",
        nargs="+",
        choices=("subject", "motion", "overall"),
        default=["subject", "motion", "overall"],
        help="default: all three",
    )
    parser.add_argument("--ties", action="store_true", help="let raters say that both are equal")
    parser.add_argument(
        "--pairs", type=int, metavar="N", help="of each two methods, at random; default: all"
    )
    parser.add_argument("--title", default="Which video is better?", help="of the page")
    parser.add_argument(
        "--say",
        action="append",
        default=[],
        metavar="WORD=TEXT",
        help="what raters read in place of a word of the prompts that they cannot know, such as"
        " sks=this; may be repeated",
    )
    parser.add_argument(
        "--seed", type=int, help="of order and sides; default: one that nobody knows, in key.json"
    )


def _add_preset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="NAME",
        help="settings by name, such as 16g-exact, under those of --set; jt-plugins lists them; may"
        " be repeated",
    )


def _settings(given: argparse.Namespace) -> list[str]:
    """What presets set, and then --set. Raises JtError."""
    from jtcore import presets

    return [*presets.settings(given.preset), *given.set]


def _add_leading(parser: argparse.ArgumentParser) -> None:
    """What leads a video besides its prompt."""
    parser.add_argument("--scale", action="append", default=[], metavar="ADAPTER=NUMBER")
    parser.add_argument(
        "--schedule",
        action="append",
        default=[],
        metavar="ADAPTER=TABLE",
        help="factors on its scale, such as 'joint={unit=\"step\", at=[5], scales=[0.5, 1]}'; false"
        " takes the recipe's away",
    )
    parser.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME=TABLE",
        help="what else leads the videos, such as 'camera={kind=\"latent_shift\", right=64}'; false"
        " takes the recipe's away",
    )


def _add_walk(parser: argparse.ArgumentParser) -> None:
    """How a video comes from noise; of what is not given, as the recipe has it."""
    parser.add_argument("--steps", type=int, help="of denoising")
    parser.add_argument("--scheduler", metavar="NAME", help="such as dpm; see the backbone")
    parser.add_argument("--guidance", type=float, help="of the prompt; 1 is none")
    parser.add_argument(
        "--dynamic-guidance", action=argparse.BooleanOptionalAction, help="on CogVideoX's cosine"
    )
    parser.add_argument("--negative", help="the prompt that guidance leads away from")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--fps", type=float, help="of the written files")
    parser.add_argument("--batch", type=int, help="videos at once")
    parser.add_argument(
        "--reference", metavar="FILE", help="a picture, for adapters with an image condition"
    )
    parser.add_argument("--noise-prior", metavar="FILE", help="a video to begin with the noise of")
    parser.add_argument(
        "--noise-share",
        type=float,
        metavar="SHARE",
        help="of that noise, 0 to 1; 0 is none, default 0.5",
    )


COMMANDS = {
    "run": run,
    "plan": plan,
    "sample": sample,
    "study": study,
    "plugins": plugins,
    "convert": convert,
    "eval": evaluate,
}


if __name__ == "__main__":  # launchers start modules: python -m jtcore.cli run RECIPE
    if sys.argv[1:2] == [] or sys.argv[1] not in COMMANDS:
        sys.exit(f"expected one of {', '.join(COMMANDS)} after jtcore.cli")
    sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
