"""One table of styles: no two things look alike, and one thing has one style."""

import re
from collections import Counter
from pathlib import Path

from matplotlib.colors import to_rgb

import racer_jax
from racer_jax.plotting import styles

ROOT = Path(racer_jax.__file__).parents[1]


def test_no_two_things_of_the_table_look_alike():
    looks = Counter((style.color, style.mark, str(style.dash)) for style in styles._TABLE.values())
    assert [look for look, count in looks.items() if count > 1] == [("#332288", "o", "-")]
    assert styles.style_of("by group") == styles.style_of("RACER")  # by group is what RACER does


def test_every_other_name_is_of_the_table_and_every_colour_is_one():
    assert set(styles._OTHER_NAMES.values()) <= set(styles._TABLE)
    assert not set(styles._OTHER_NAMES) & set(styles._TABLE)
    for style in (*styles._TABLE.values(), *styles._SPARE):
        assert len(to_rgb(style.color)) == 3


def test_spare_styles_are_unlike_those_of_the_table_and_given_in_order():
    spare = styles.styles_of(["mine", "RACER-G", "yours", "mine"])
    assert list(spare) == ["mine", "RACER-G", "yours"]
    assert spare["mine"] == styles._SPARE[0]
    assert spare["yours"] == styles._SPARE[1]
    assert spare["RACER-G"] == styles.style_of("gap")
    known = {style.color for style in styles._TABLE.values()}
    assert not known & {style.color for style in styles._SPARE}


def test_no_figure_has_colours_of_its_own():
    sources = [*(ROOT / "racer_jax/plotting").glob("*.py"), *(ROOT / "experiments").glob("*.py")]
    own = {
        path.name: colors
        for path in sources
        if path.name != "styles.py"
        and (colors := re.findall(r"#[0-9A-Fa-f]{6}\b|[\"']C\d[\"']", path.read_text()))
    }
    assert own == {}
