from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_readme_shows_the_objects_that_the_demo_applies() -> None:
    shown = (ROOT / "README.md").read_text()
    assert (ROOT / "manifests/demo.yaml").read_text().strip() in shown


def test_every_document_that_the_readme_links_to_exists() -> None:
    words = (ROOT / "README.md").read_text().replace(")", "(").split("](")
    links = [word.split("(")[0] for word in words[1:]]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
