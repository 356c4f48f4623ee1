"""The engine for threads of a LangGraph server."""
