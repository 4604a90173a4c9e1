"""A result that is a pair of values and vectors, and says what is certified."""

import pickle

import numpy as np

from hesskern.linalg.eigenpairs import Eigenpairs


def test_a_pair_with_more_to_say():
    pairs = Eigenpairs(np.array([1.0, 2.0]), np.eye(3, 2), np.array([0.0, 1e-15]), False, np.nan, "not certified: why")
    values, vectors = pairs
    assert values is pairs.values and vectors is pairs.vectors and len(pairs) == 2
    assert isinstance(pairs, tuple) and not pairs.certified
    assert repr(pairs) == "Eigenpairs(values=array([1., 2.]), not certified: why)"
    again = pickle.loads(pickle.dumps(pairs))
    assert type(again) is Eigenpairs and again.note == pairs.note and np.isnan(again.error)
    np.testing.assert_array_equal(again.vectors, vectors)
    np.testing.assert_array_equal(again.residuals, pairs.residuals)
    plain = Eigenpairs(values, vectors)
    assert plain.certified and plain.residuals is None
