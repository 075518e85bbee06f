"""The command line. Data goes to standard output, messages to standard error."""
