"""Cases that once were wrong: the ordinary suite runs them.

A seed means the problem that today's generator makes of it: who changes the generator looks for new seeds of the same
kind (``make attack`` on the revision before the repair finds them), or writes the arrays down in a test of its own.
"""

#: What was wrong, and the cases.
FIXED: dict[str, tuple[str, ...]] = {
    "a product with the Hessian overflowed in between": ("problem:969", "problem:11248", "problem:2000012764"),
    "regular systems were refused, since the bound on rounding multiplied norms over all layers": (
        "problem:604", "problem:1549", "problem:4329", "problem:5952", "problem:20025", "problem:20183",
        "problem:21467", "problem:21904", "problem:2000021762", "problem:21923", "problem:30662", "problem:30758",
        "problem:31315", "problem:60162", "problem:60211",
    ),
    "regular systems of biases alone were refused": ("problem:1994",),
    "clear eigenvalues of a graded or scaled network counted as zero": (
        "problem:2767", "problem:20721", "problem:31345", "problem:2000000908", "problem:2000003935",
        "problem:2000016878", "problem:2000014574", "problem:2000016396",
    ),
    "the condition number of a scaled block divided by zero": ("problem:5591", "problem:2000017364"),
    "a direction of the inputs and the constant one was lost in a block's condition number": (
        "problem:7331", "problem:2000003349", "problem:2000021310",
    ),
    "samples of a float32 network were rounded to float32 after their reduction": (
        "problem:20020", "problem:20031", "problem:20088", "problem:20120", "problem:20131",
    ),
    "a resumed run that had diverged returned another network": ("resume:0", "resume:7", "resume:12"),
    "products for confidently classified samples cancelled": ("softmax:4", "softmax:5", "softmax:1000000001"),
    "the condition number of a graded block divided by zero, errors having left float64": ("grading:400121000000177",),
    "a row that was noise outside what is kept of the last weight was larger than what is kept": (
        "grading:400131000000206",
    ),
    "values known to no digit were counted, or stood beside a small uncertainty": (
        "grading:5551000008021", "grading:5551000031419", "grading:5552000016118", "grading:5552000053950",
    ),
    "what was left out of a graded block was larger than the weight decay": (
        "grading:5552000009090", "grading:5553000015436", "grading:5553000017048",
    ),
    "eigenvectors of LAPACK's divide and conquer were orthogonal to 3e-12 only": ("problem:400152000150749",),
    "squares in the unit of a pivot's row left float64, in NumPy and Numba": ("problem:400153000057447",),
    "derivatives with respect to the constant 1 overflowed beside an ordinary gradient, in Numba": (
        "problem:500002000145640",
    ),
    "the backend of one thread was seen in others": ("thread:0", "thread:5"),
    "a child that was forked while another thread computed waited for ever": ("thread:2",),
}  # fmt: skip
