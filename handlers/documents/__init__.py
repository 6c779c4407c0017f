"""The task type document_processing."""
