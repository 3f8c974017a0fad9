"""One module per step, written by hand; the tests print what a step forgot."""
