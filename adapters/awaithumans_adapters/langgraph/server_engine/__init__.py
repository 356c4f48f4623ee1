"""The engine that resumes threads of a LangGraph server."""
