"""The executor on OpenVINO: the model as one of its graphs, made here from our own description."""
