"""The command line, a module for each command and the work behind it."""
