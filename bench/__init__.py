"""The benchmark harness: the same workloads on Apiary and on its peers, side by side in one run."""
