"""Access control of streams in another program: by its own portal and policy, or by the settings."""

from __future__ import annotations

from typing import Any, Final

from twisted.cred.credentials import IAnonymous, IUsernamePassword
from twisted.cred.portal import Portal

from ..clocks import clock_of
from ..config.auth_rules import has_rules
from ..config.settings import Settings
from ..daemon.access import access_control_from
from ..identity.authentication import Authentication
from ..identity.control import AccessControl
from ..identity.credentials import IBearerToken, IClientCertificate, IProxyIdentity, ISignedUrl
from ..identity.policy import Policy
from ..identity.realm import PrincipalRealm

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


def access_from(
    portal: Portal | None,
    policy: Policy | None,
    access: AccessControl | None,
    settings: Settings,
    reactor: Any,
) -> AccessControl | None:
    """
    Return the access control that a program asks for; without one, that of the settings.

    :returns: None if everybody may do everything.
    :raises ValueError: it asks for two, or for a portal without a policy.
    :raises ConfigError: a file that the settings name cannot be used, or a rule is invalid.
    """
    if portal is None and policy is None:
        return access or access_control_from(settings, reactor)
    if access is not None or settings.auth.methods or has_rules(settings):
        raise ValueError(
            "There are two access controls. Give a portal and a policy, or access, or settings with auth.methods and "
            "auth.rules."
        )
    return build_access_control(portal, policy, reactor)
