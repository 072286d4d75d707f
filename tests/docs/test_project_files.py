"""CITATION.cff, CHANGELOG and the package tell one story."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import racer_jax

ROOT = Path(__file__).parents[2]


def field(name: str) -> str:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    return re.search(rf"^{name}: (.*)$", text, re.MULTILINE)[1].strip('"')


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == racer_jax.__version__ == field("version")
    assert project["license"] == field("license")


def test_the_changelog_has_the_known_sections():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "[Unreleased]"
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= known


def test_the_paper_is_cited_alike():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "2603.06616" in readme
    assert "2603.06616" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "@article{hao2026racer" in readme


PUBLISHED = re.compile(r"pip3? install (?:-\S+ )*['\"]?racer[-_]jax[^\n]*")


def walked() -> list[Path]:
    """What users read and run: sources, pages, notebooks and settings, without this test."""
    places = ["racer_jax", "tests", "docs", "experiments", "benchmarks", "containers"]
    files = [path for place in places for path in (ROOT / place).rglob("*")]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    kinds = {".py", ".md", ".ipynb", ".toml", ".cff", ".js", ".html", ".yml", ".sh", ""}
    return [path for path in files if path.suffix in kinds and path.is_file()]


def test_nothing_is_installed_by_a_name_that_is_not_published():
    """Until there is a release, what one is told to type works from a clone."""
    other = [path for path in walked() if path != Path(__file__)]
    assert ROOT / "README.md" in other
    assert ROOT / "racer_jax" / "_distribution.py" in other
    wrong = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in other
        for line in PUBLISHED.findall(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not wrong


def test_an_extra_that_is_asked_for_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = set()
    for path in walked():
        text = path.read_text(encoding="utf-8", errors="replace")
        asked |= set(re.findall(r"install_command\([\"'](\w+)[\"']\)", text))
        for extras in re.findall(r"pip install [^\n]*-e '\.\[([\w,]+)\]'", text):
            asked |= set(extras.split(","))
    assert {"report", "serve", "minilm"} <= asked <= set(project["optional-dependencies"])


def test_what_the_commands_of_the_pages_write_is_ignored_by_git():
    """Whoever types them in a clone commits none of it, least of all a key."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = [line.strip("/") for line in lines if line.startswith("/")]
    written = {"racer-demo"}  # `racer-jax demo` has it by default
    for page in (ROOT / "README.md", ROOT / "docs" / "gateway.md", ROOT / "docs" / "tutorial.md"):
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            written |= set(re.findall(r"racer-jax [^\n]* -o ([\w.-]+)", block))
            written |= {Path(path).name for path in re.findall(r"\bcp (\S+) \. ", block)}
            written |= set(re.findall(r"(?:--key|recalibrate) ([\w.-]+)", block))
    assert {"logs.csv", "my.racer", "exams.racer", "gateway.db", "signing.pem"} <= written
    assert not [name for name in written if not any(fnmatch(name, line) for line in ignored)]


def test_a_clone_goes_into_a_folder_that_is_not_there_yet():
    """`git clone . racer_jax` in a clone finds the package's own folder in its way."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (folder,) = re.findall(r"^git clone \S+ (\S+)", text, re.MULTILINE)
    names = {path.name for path in ROOT.iterdir()}
    assert folder.startswith("../")
    assert folder.removeprefix("../") not in names
