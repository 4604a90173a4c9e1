"""docs/curvature.md: its example at the interpreter's prompt gives what the page says."""

import doctest

from fenced import text_of


def test_the_example_gives_what_the_page_says():
    text = text_of("docs/curvature.md").replace("```", "")  # a closing fence would be taken for expected output
    example = doctest.DocTestParser().get_doctest(text, {}, "docs/curvature.md", None, 0)
    assert len(example.examples) >= 4
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0
