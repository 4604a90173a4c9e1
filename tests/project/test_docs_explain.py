"""docs/explain.md: what `explain` says of the case of the demo, and of three mistakes at once."""

from fenced import check_printed, examples, printed_by


def test_the_examples_print_what_the_page_says():
    names = {}
    pairs = [(script, said) for script, said in examples("docs/explain.md") if said.startswith("Explained")]
    assert len(pairs) == 2
    for script, said in pairs:
        # What is left after the findings is rounding, different on each processor; errors have two digits.
        check_printed(printed_by(script, names), said, 0.05, small=1e-12)
