"""Which policy a task runs under, and with which limits."""

from __future__ import annotations

from engine.settings import Settings
from sandbox import Limits, Policy, PolicyError, load_policies


class Policies:
    """The policies of this process, by name and by task type."""

    def __init__(self, policies: dict[str, Policy]) -> None:
        """
        Args:
            policies: policy name → policy.

        Raises:
            PolicyError: a task type has policies but none named after it, so that none is its default.
        """
        self._policies = policies
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
            PolicyError: a file that cannot be, or no file at all; a disabled policy that there is not.
        """
        policies = load_policies(settings.policies_dir, exceptions=settings.egress_allow_private)
        if unknown := sorted(set(settings.disabled_policies) - set(policies)):
            raise PolicyError(f"DISABLED_POLICIES: {', '.join(unknown)}: no such policy in {settings.policies_dir}")
        kept = {name: policy for name, policy in policies.items() if name not in settings.disabled_policies}
        if not kept:
            raise PolicyError("DISABLED_POLICIES: names every policy that there is; none is left to run tasks under")
        return cls(kept)

    @property
    def all(self) -> tuple[Policy, ...]:
        """Every policy."""
        return tuple(self._policies.values())

    @property
    def task_types(self) -> tuple[str, ...]:
        """The task types that have a policy."""
        return tuple(sorted({policy.task_type for policy in self._policies.values()}))

    def default(self, task_type: str) -> Policy:
        """The policy of a task type for who names none.

        Raises:
            KeyError: the task type has no policy.
        """
        return self._policies[task_type]

    def named(self, name: str) -> Policy | None:
        """The policy of this name."""
        return self._policies.get(name)


def effective_limits(policy: Policy, settings: Settings, timeout_s: float | None) -> Limits:
    """The policy's limits, lowered by the operator's ``MAX_TASK_TIMEOUT`` and by the request's timeout, seconds."""
    longest_s = settings.max_task_timeout_s
    return policy.limits.narrowed(timeout_s=longest_s if timeout_s is None else min(timeout_s, longest_s))
