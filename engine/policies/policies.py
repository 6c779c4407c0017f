"""Which policy a task runs under, and with which limits."""

from __future__ import annotations

import functools

from engine.config.settings import Settings
from engine.policies.lock import check_lock
from sandbox import Limits, Policy, PolicyError, PolicyFile, read_policies


class Policies:
    """The policies of this process, by name and by task type."""

    def __init__(self, policies: dict[str, Policy], files: dict[str, PolicyFile] | None = None) -> None:
        """
        Args:
            policies: policy name → policy.
            files: policy name → the file that it was read from, for who audits it.

        Raises:
            PolicyError: a task type has policies but none named after it, so that none is its default.
        """
        self._policies = policies
        self._files = files or {}
        for policy in policies.values():
            if policy.task_type not in policies:
                raise PolicyError(
                    f"{policy.name}: no policy is named {policy.task_type}, which would be the default "
                    "of that task type"
                )
            if policies[policy.task_type].task_type != policy.task_type:
                raise PolicyError(f"{policy.task_type}: a policy named after a task type must be of that type")

    @classmethod
    def load(cls, settings: Settings) -> Policies:
        """Read the policy files of ``POLICIES_DIR``, all of them, and leave out what ``DISABLED_POLICIES`` names.

        Raises:
            PolicyError: a file is invalid, or there is none; one that differs from the lock that ``POLICY_LOCK``
                requires; a disabled policy that there is not.
        """
        files = read_policies(settings.policies_dir, exceptions=settings.egress_allow_private)
        policies = {name: file.policy for name, file in files.items()}
        if settings.policy_lock == "required":
            check_lock(settings.policies_dir, policies.values())
        if unknown := sorted(set(settings.disabled_policies) - set(policies)):
            raise PolicyError(f"DISABLED_POLICIES: {', '.join(unknown)}: no such policy in {settings.policies_dir}")
        kept = {name: policy for name, policy in policies.items() if name not in settings.disabled_policies}
        if not kept:
            raise PolicyError("DISABLED_POLICIES: names every policy that there is; none is left to run tasks under")
        return cls(kept, files)

    @property
    def all(self) -> tuple[Policy, ...]:
        """Every policy."""
        return tuple(self._policies.values())

    @functools.cached_property  # asked for each request
    def task_types(self) -> tuple[str, ...]:
        """The task types that have a policy."""
        return tuple(sorted({policy.task_type for policy in self._policies.values()}))

    @property
    def digests(self) -> dict[str, str]:
        """Policy name → digest."""
        return {name: policy.digest for name, policy in sorted(self._policies.items())}

    def default(self, task_type: str) -> Policy:
        """The policy of a task type for who names none.

        Raises:
            KeyError: the task type has no policy.
        """
        return self._policies[task_type]

    def named(self, name: str) -> Policy | None:
        """The policy of this name."""
        return self._policies.get(name)

    def file(self, name: str) -> PolicyFile | None:
        """The file that the policy of this name was read from."""
        return self._files.get(name) if name in self._policies else None


def effective_limits(
    policy: Policy, settings: Settings, timeout_s: float | None = None, memory_mib: int | None = None
) -> Limits:
    """The limits in force: the policy's, lowered by the operator's ceilings and by the request. Nothing raises one.

    Args:
        policy: what runs may have at most.
        settings: ``MAX_TASK_TIMEOUT`` and ``MAX_TASK_MEMORY_MIB`` are the operator's ceilings.
        timeout_s: what the request asks for, seconds.
        memory_mib: likewise, MiB.
    """
    narrowed = policy.limits.narrowed(timeout_s=settings.max_task_timeout_s, memory_mib=settings.max_task_memory_mib)
    return narrowed.narrowed(timeout_s=timeout_s, memory_mib=memory_mib)


def largest_memory_mib(policies: Policies, settings: Settings) -> int:
    """The most memory that one task may have, under any policy, MiB."""
    return max(effective_limits(policy, settings).memory_mib for policy in policies.all)


def allowed_attempts(policy: Policy, settings: Settings) -> int:
    """How often a task may be started: the policy's number, lowered by the operator's ceiling (``MAX_ATTEMPTS``)."""
    return min(policy.max_attempts, settings.max_attempts or policy.max_attempts)
