"""The torch profiling runner: times on a GPU, or a CPU, exactly the ops that the cost model prices.

The only package that imports torch. It needs torch, numpy, pyarrow and omegaconf alone, for bare GPU machines.
"""
