"""docs/start.md: the output of the demo is the one beside the picture, and the example prints what it says."""

from fenced import blocks, check_printed, examples, printed_by, text_of

from hesskern.demo.results import AGREE


def test_the_demo_output_is_the_one_beside_the_picture():
    assert ("", text_of("docs/pictures/demo.txt")) in blocks("docs/start.md")


def test_the_example_prints_what_the_page_says():
    ((script, said),) = examples("docs/start.md")
    # Uncertainties and last losses depend on rounding, so on the processor; the rest to its printed digits.
    check_printed(printed_by(script, {}), said, AGREE, small=1e-8)
