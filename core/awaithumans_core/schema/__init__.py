"""Payload and response classes: validators, JSON Schemas, fields, and what an answer may not leave to a default."""
