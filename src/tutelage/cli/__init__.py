"""The command line: parses words, calls one function, sets the exit code. Imports torch only inside a verb."""
