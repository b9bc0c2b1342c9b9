"""Plugins are found wherever they are, and hurt nobody but themselves."""

import pytest

from jtcore import JtError
from jtcore.plugins import BACKBONE_METHODS, Broken, load_plugins
from jtcore.types import BackboneSpec

NOTHING_BUT_A_LOSS = """
    from attrs import frozen
    from jtcore import hookimpl

    @frozen
    class Fine:
        def __call__(self, prediction, noised, part, rng):
            return (prediction - noised.target).flatten(1).mean(1)

    @hookimpl
    def jt_losses():
        return {"fine": Fine}
"""


def test_a_plugin_remembers_where_it_came_from(load_with, plugin_folder):
    loaded = load_with(fine=NOTHING_BUT_A_LOSS)

    file = str(plugin_folder() / "fine.py")
    assert loaded.providers["losses", "fine"] == file
    assert loaded.origins[file].file == file
    assert len(loaded.origins[file].sha256) == 64


BROKEN = {
    "import": ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
    "syntax": ("def", "SyntaxError: invalid syntax (it.py, line 1)"),
    "exit": ("raise SystemExit(7)", "SystemExit: 7"),
    "typo": (
        """
        from jtcore import hookimpl

        @hookimpl
        def jt_loses():
            return {}
        """,
        "PluginValidationError: unknown hook 'jt_loses' in plugin",
    ),
    "argument": (
        """
        from jtcore import hookimpl

        @hookimpl
        def jt_run_finished(run, eror):
            pass
        """,
        "PluginValidationError: Plugin ",
    ),
    "unmarked": (
        """
        def jt_losses():
            return {}
        """,
        "TypeError: jt_losses lacks @hookimpl",
    ),
    "answer": (
        """
        from jtcore import hookimpl

        @hookimpl
        def jt_losses():
            return [int]
        """,
        "TypeError: jt_losses returned list, not a mapping kind -> class",
    ),
    "raises": (
        """
        from jtcore import hookimpl

        @hookimpl
        def jt_metrics():
            raise RuntimeError("not today")
        """,
        "RuntimeError: not today",
    ),
    "method": (
        """
        from attrs import frozen
        from jtcore import hookimpl

        @frozen
        class Mute:
            pass

        @hookimpl
        def jt_losses():
            return {"mute": Mute}
        """,
        "TypeError: jt_losses: Mute has no method '__call__'",
    ),
    "plain": (
        """
        from jtcore import hookimpl

        class Plain:
            def attach(self, backbone, others):
                pass

        @hookimpl
        def jt_adapters():
            return {"plain": Plain}
        """,
        "TypeError: jt_adapters: 'plain' is not an attrs class",
    ),
    "one way": (
        """
        from attrs import frozen
        from jtcore import hookimpl

        @frozen
        class Unchecked:
            def write(self, updates, denoiser, path):
                pass

        @hookimpl
        def jt_formats():
            return {"unchecked": Unchecked}
        """,
        "TypeError: jt_formats: Unchecked has neither 'read' nor both 'write' and 'load'",
    ),
    "observers": (
        """
        from jtcore import hookimpl

        @hookimpl
        def jt_observers():
            return 3
        """,
        "TypeError: jt_observers returned something else than a sequence of classes",
    ),
    "observer's hook": (
        """
        from jtcore import hookimpl

        class Watch:
            def __init__(self, run, recipe):
                pass

            @hookimpl
            def jt_step_finnished(self, step):
                pass

        @hookimpl
        def jt_observers():
            return [Watch]
        """,
        "TypeError: unknown hook 'jt_step_finnished'; did you mean 'jt_step_finished'?",
    ),
    "observer's mark": (
        """
        from jtcore import hookimpl

        class Watch:
            def __init__(self, run, recipe):
                pass

            def jt_step_finished(self, step):
                pass

        @hookimpl
        def jt_observers():
            return [Watch]
        """,
        "TypeError: jt_step_finished lacks @hookimpl",
    ),
}

BACKBONE = """
    from attrs import frozen
    from jtcore import hookimpl

    @frozen
    class Partial:
{methods}

    @hookimpl
    def jt_backbones():
        return {{"partial": Partial}}
"""


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_hurts_nobody_else(load_with, plugin_folder, name):
    source, error = BROKEN[name]
    loaded = load_with(it=source, fine=NOTHING_BUT_A_LOSS)

    (broken,) = loaded.broken
    assert broken.name == str(plugin_folder() / "it.py")
    assert broken.error.startswith(error)
    assert "fine" in loaded.families["losses"]
    assert broken.name not in loaded.origins
    assert not loaded.manager.has_plugin(broken.name)


@pytest.mark.parametrize("missing", [None, *BACKBONE_METHODS])
def test_a_backbone_must_have_every_method(load_with, plugin_folder, missing):
    methods = [f"        def {m}(self): ..." for m in BACKBONE_METHODS if m != missing]

    loaded = load_with(it=BACKBONE.format(methods="\n".join(methods)))

    file = str(plugin_folder() / "it.py")
    error = f"TypeError: jt_backbones: Partial has no method {missing!r}"
    assert loaded.broken == (() if missing is None else (Broken(file, error),))
    assert ("partial" in loaded.families["backbones"]) == (missing is None)


def test_a_backbone_has_the_methods_of_its_protocol():
    methods = [name for name in vars(BackboneSpec) if not name.startswith("_")]

    may_be_left_out = {"adopt", "offline", "precision_problem", "text_network"}
    may_be_left_out |= {"weights_problems", "word_positions"}
    assert {*BACKBONE_METHODS} == {*methods} - may_be_left_out


def test_an_unknown_kind_is_told_with_the_nearest_and_the_broken(load_with, plugin_folder):
    loaded = load_with(it="raise SystemExit(7)")

    with pytest.raises(JtError) as caught:
        loaded.find("losses", "aitt")

    file = plugin_folder() / "it.py"
    assert str(caught.value) == (
        f"unknown loss 'aitt'; did you mean 'ait'?\n  broken plugin {file}: SystemExit: 7"
    )


@pytest.mark.parametrize(
    ("family", "noun"),
    [
        ("backbones", "backbone"),
        ("adapters", "adapter"),
        ("losses", "loss"),
        ("metrics", "metric"),
        ("formats", "format"),
        ("image_encoders", "image encoder"),
        ("controls", "control"),
    ],
)
def test_an_unknown_kind_that_is_near_nothing_is_told_with_all(plugins, family, noun):
    with pytest.raises(JtError) as caught:
        plugins.find(family, "qqq")

    known = ", ".join(sorted(plugins.families[family]))
    assert str(caught.value) == f"unknown {noun} 'qqq'; there are {known}"


def test_two_plugins_that_provide_one_kind_are_both_named(load_with, plugin_folder):
    with pytest.raises(JtError) as caught:
        load_with(one=NOTHING_BUT_A_LOSS, two=NOTHING_BUT_A_LOSS)

    folder = plugin_folder()
    assert str(caught.value) == (
        f"losses: kind 'fine' is provided by both {folder / 'one.py'} and {folder / 'two.py'};"
        " rename or remove one of them"
    )


def test_a_kind_that_is_built_in_cannot_be_taken(load_with, plugin_folder, plugins):
    with pytest.raises(JtError) as caught:
        load_with(mine=NOTHING_BUT_A_LOSS.replace('"fine"', '"ait"'))

    built_in = plugins.origins["losses.ait"].file
    assert str(caught.value) == (
        f"losses: kind 'ait' is provided by both losses.ait [{built_in}] and"
        f" {plugin_folder() / 'mine.py'}; rename or remove one of them"
    )


def test_a_folder_that_is_missing_is_told(tmp_path):
    with pytest.raises(JtError) as caught:
        load_plugins([tmp_path / "nowhere"])

    assert str(caught.value) == f"plugin folder {str(tmp_path / 'nowhere')!r} is not a folder"


def test_a_folder_may_be_named_twice(plugin_folder):
    folder = plugin_folder(fine=NOTHING_BUT_A_LOSS)

    loaded = load_plugins([folder, folder / ".." / folder.name])

    assert loaded.broken == ()
    assert loaded.manager.has_plugin(str(folder / "fine.py"))


def test_folders_may_have_files_of_one_name(plugin_folder, tmp_path):
    first = plugin_folder(fine=NOTHING_BUT_A_LOSS)
    second = first.rename(tmp_path / "second")
    first = plugin_folder(fine=NOTHING_BUT_A_LOSS.replace('"fine"', '"other"'))

    loaded = load_plugins([first, second])

    assert {"fine", "other"} <= loaded.families["losses"].keys()


def test_files_that_begin_with_an_underscore_are_no_plugins(load_with):
    loaded = load_with(_shared="raise SystemExit(7)")

    assert loaded.broken == ()


def test_what_is_loaded_is_a_value(load_with):
    with_loss, without = load_with(fine=NOTHING_BUT_A_LOSS), load_plugins()

    assert "fine" in with_loss.families["losses"]
    assert "fine" not in without.families["losses"]
