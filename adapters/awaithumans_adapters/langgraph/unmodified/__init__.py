"""Human answers for graphs that call `interrupt()` themselves and do not import this package."""
