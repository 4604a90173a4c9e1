"""Hessians as operators: blocks, Gauss-Newton, functional part, K-FAC."""
