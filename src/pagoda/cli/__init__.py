"""The command line: one module a command group, standard library only until a command runs."""
