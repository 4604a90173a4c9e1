"""Dense linear algebra on symmetric matrices: spectra, condition numbers, decompositions. No networks here."""
