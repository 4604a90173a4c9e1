"""docs/reductions.md: its examples at the interpreter's prompt give what the page says."""

import doctest

from fenced import text_of


def test_the_examples_give_what_the_page_says():
    text = text_of("docs/reductions.md").replace("```", "")  # a closing fence would be taken for expected output
    example = doctest.DocTestParser().get_doctest(text, {}, "docs/reductions.md", None, 0)
    assert len(example.examples) >= 12
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0
