"""The question about a tool call, the form in which a person decides, and the decision read back.

Framework-independent.
"""
