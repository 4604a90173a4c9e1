"""docs/curvature.md: its session in the interpreter gives what the page says."""

import doctest

from fenced import text_of


def test_the_session_gives_what_the_page_says():
    text = text_of("docs/curvature.md").replace("```", "")  # a closing fence would be taken for expected output
    session = doctest.DocTestParser().get_doctest(text, {}, "docs/curvature.md", None, 0)
    assert len(session.examples) >= 4
    assert doctest.DocTestRunner(verbose=False).run(session).failed == 0
