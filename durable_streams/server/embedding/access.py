"""Access control of streams in another program: by its own portal and policy, or by the settings."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

from twisted.cred.credentials import IAnonymous, IUsernamePassword
from twisted.cred.portal import Portal

from ..clocks import clock_of
from ..config.auth_rules import has_rules
from ..config.settings import Settings
from ..daemon.access import access_control_from
from ..daemon.auditing import audit_from, open_audit_log, record_access_changes
from ..identity.authentication import Authentication
from ..identity.control import AccessControl
from ..identity.credentials import IBearerToken, IClientCertificate, IProxyIdentity, ISignedUrl
from ..identity.policy import Policy
from ..identity.realm import PrincipalRealm
from ..telemetry.audit import AuditLog

#: The credentials that a portal's checkers may take, in the order in which a request is looked at, and their method.
_METHODS: Final = (
    (IBearerToken, "bearer"),
    (IUsernamePassword, "basic"),
    (IClientCertificate, "certificate"),
    (IProxyIdentity, "header"),
    (ISignedUrl, "signed-url"),
)


def build_access_control(
    portal: Portal | None = None, policy: Policy | None = None, reactor: Any = None
) -> AccessControl:
    """
    Create an access control for :func:`.build_resource` and :func:`.build_service`.

    Keep it to change the rules later with ``set_policy``, or to call ``changed`` when credentials were revoked, so that
    the checkers are asked again. Live reads end when the rules do not allow them any more, or a checker that provides
    :class:`.IRevocations` returns that their principal is not current.

    :param portal: its checkers take :class:`.IBearerToken`, ``IUsernamePassword`` (HTTP Basic),
        :class:`.IClientCertificate`, :class:`.IProxyIdentity` or :class:`.ISignedUrl`; its realm is
        :class:`.PrincipalRealm`, or another one that returns a :class:`.Principal` for :class:`.IPrincipal`. None if
        all requests are anonymous.
    :param policy: what principals may do. What it does not allow is denied.
    :param reactor: None for the installed reactor.
    :raises ValueError: there is no policy, or no checker of the portal takes credentials of requests.
    """
    if policy is None:
        raise ValueError('A portal needs a policy, such as parse_rules(["allow authenticated all **"], "the program").')
    if reactor is None:
        from twisted.internet import reactor as running  # noqa: PLC0415 (the program may choose one until now)

        reactor = running
    methods: list[str] = []
    if portal is not None:
        methods += [method for interface, method in _METHODS if interface in portal.checkers]
        if not methods and IAnonymous not in portal.checkers:
            names = ", ".join(interface.__name__ for interface, _ in _METHODS)
            raise ValueError(f"No checker of the portal takes credentials that requests can present: {names}.")
    authentication = Authentication(portal or Portal(PrincipalRealm()), methods, True, clock_of(reactor))
    return AccessControl(authentication, policy, reactor)


def given_access(
    portal: Portal | None, policy: Policy | None, access: AccessControl | None, settings: Settings, reactor: Any
) -> AccessControl | None:
    """
    Return the access control that a program gives.

    :returns: None if it gives none, and that of the settings counts.
    :raises ValueError: it gives two, or a portal without a policy.
    """
    if portal is None and policy is None:
        return access
    if access is not None or settings.auth.methods or has_rules(settings):
        raise ValueError(
            "There are two access controls. Give a portal and a policy, or access, or settings with auth.methods and "
            "auth.rules."
        )
    return build_access_control(portal, policy, reactor)


class ServiceAccess:
    """
    The access controls of the resources of a service, and their audit log, which start and stop with the service.

    :param settings: of the service.
    :param reactor: of the service.
    """

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self._running = False
        self._controls: list[AccessControl] = []
        self._audit: AuditLog | None = None

    @cached_property
    def of_settings(self) -> AccessControl | None:
        """
        The access control of the settings, which all resources share; None if everybody may do everything.

        :raises ConfigError: a file that the settings name cannot be used, or a rule is invalid.
        """
        return access_control_from(self._settings, self._reactor)

    def add(self, control: AccessControl) -> AuditLog:
        """
        Start and stop an access control with the service, and record its changes. If it was added, nothing happens.

        :returns: the audit log of the settings, which is opened at the first call.
        :raises StartupError: ``audit.file`` cannot be opened.
        """
        if self._audit is None:
            audit = audit_from(self._settings, clock_of(self._reactor))
            open_audit_log(audit, self._settings)
            self._audit = audit
        if control not in self._controls:
            self._controls.append(control)
            record_access_changes(self._audit, control)
            if self._running:
                control.start()
        return self._audit

    def start(self) -> None:
        """Start the access controls."""
        self._running = True
        for control in self._controls:
            control.start()

    def stop(self) -> None:
        """Stop the access controls, and close the audit log."""
        self._running = False
        for control in self._controls:
            control.stop()
        if self._audit is not None:
            self._audit.close()

    def reopen_audit_log(self) -> None:
        """Go on in a new audit log of the same path, after the old one was renamed."""
        if self._audit is not None:
            self._audit.reopen()
