"""docs/training.md: its examples, one after another, print what the page says."""

from fenced import check_printed, examples, printed_by


def test_the_examples_print_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example writes a checkpoint
    names = {}
    pairs = examples("docs/training.md")
    assert len(pairs) == 4
    for script, said in pairs:
        check_printed(printed_by(script, names), said, 1e-5)
