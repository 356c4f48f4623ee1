"""The benchmark book: declares rows in one form, measures them in one run, and writes one report.

rows       What is measured: benchmarks, their rows, and the claims about a row.
selection  The rows that a command line names.
run        One run of one benchmark, in a process of its own.
runner     Starts these processes, limits their time, and collects what they record.
records    The lines of JSON that a run leaves, which are all that the report needs.
verdicts   Ratios, margins, and whether a claim holds.
document   The report as Markdown, and as text for a terminal.
plots      The plot of each row.
"""
