"""How local data are: entanglement over canonical partitions of their features, and orders of features that lower it.

Definitions follow Alexander, De La Vega, Razin and Cohen, "What Makes Data Suitable for a Locally Connected Neural
Network?" (NeurIPS 2023, arXiv 2303.11249).
"""
