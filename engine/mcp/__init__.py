"""The agents' door, ``python -m engine mcp``: runs Python for models and their programs by the Model Context Protocol.

It knows the service by ``engine.client`` only, and has no rights of its own: each call is made under the caller's key,
so that the caller's tenant, policies and quotas hold here as everywhere. It needs the extra ``mcp``.
"""
