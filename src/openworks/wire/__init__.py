"""The shapes on the network, one package per dialect."""
