"""``authorize``: explain what the rules decide."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from msgspec import Struct

from ..config.layers import load
from ..config.validation import ConfigError
from ..identity.operations import ADMIN, OPERATIONS, SUBSCRIBE
from .errors import CommandError
from .options import SettingsFiles, json_option, settings_options
from .output import note, print_json, print_line

if TYPE_CHECKING:
    from ..config.sections import Sections
    from ..identity.explanation import RuleResult
    from ..identity.policy import Policy
    from ..identity.principal import Grant, Principal

#: The kinds of requests without credentials, and of signed URLs, whose grants are names.
_NOBODY: Final = "anonymous"
_SIGNED_URL: Final = "signed-url"

_DENIED: Final = 1
_NOT_DECIDED: Final = 2


class Authorization(Struct, frozen=True):
    """
    The JSON object that ``authorize --json`` prints.

    :ivar rule: the rule that decided, after its source and number; null if none did.
    :ivar reason: a sentence.
    :ivar public: whether shared caches may keep what is read.
    :ivar rules: the rules up to the one that decided, each with the reason why it does not match.
    """

    allowed: bool
    subject: str
    kind: str
    operation: str
    name: str
    rule: str | None
    reason: str
    public: bool
    rules: list[RuleResult]


class _NoDecision(CommandError):
    """The rules or the name cannot be used; the message says why and what to do."""

    exit_code = _NOT_DECIDED


@click.command("authorize")
@settings_options
@click.option("--as", "subject", metavar="SUBJECT", help="Who asks. Without it: a request without credentials.")
@click.option("--group", "groups", metavar="GROUP", multiple=True, help="A group of the principal. May be repeated.")
@click.option(
    "--claim",
    "claims",
    metavar="NAME=VALUE",
    multiple=True,
    help="A claim of the principal. VALUE is JSON, or else text. Several of one name are a list.",
)
@click.option("--kind", metavar="KIND", help="token, jwt, certificate, header or signed-url. Default: token.")
@click.option(
    "--grant",
    "grants",
    metavar="OPERATIONS NAME",
    nargs=2,
    multiple=True,
    help="A grant of the credentials, such as an item of ds_streams of a JWT: create,append 'chats/*'.",
)
@click.option("--rules-file", metavar="FILE", help="Decide by the rules of this file, whatever the settings are.")
@click.option("--pattern", "is_pattern", is_flag=True, help="NAME is a pattern, as of a subscription.")
@click.option("-v", "--verbose", is_flag=True, help="Print the rules that do not match, too, each with the reason.")
@json_option
@click.argument("operation", metavar="OPERATION", type=click.Choice(OPERATIONS))
@click.argument("name", metavar="[NAME]", required=False)
def command(
    files: SettingsFiles,
    rules_file: str | None,
    operation: str,
    name: str | None,
    is_pattern: bool,
    verbose: bool,
    as_json: bool,
    **who: Any,
) -> None:
    """
    Explain whether somebody may do OPERATION on the stream NAME, and which rule decides.

    NAME is written as in rules: below the base path, not percent-encoded. admin needs none. The exit status is 0 if it
    is allowed, 1 if it is denied, and 2 if there is no decision, because rules or settings are invalid for instance.
    """
    principal = _principal(**who)
    settings = None if rules_file is not None else _settings(files)
    name = _checked_name(operation, name, is_pattern)
    found = _authorize(settings, rules_file, principal, operation, name, is_pattern)
    if as_json:
        print_json(found)
    else:
        _print(found, verbose)
    if not found.allowed:
        raise click.exceptions.Exit(_DENIED)


def _print(found: Authorization, verbose: bool) -> None:
    who = f"{found.subject} ({found.kind})" if found.subject else found.kind
    what = f"{found.operation} {found.name}".rstrip()
    print_line(f"{'allowed' if found.allowed else 'denied'}: {who}, {what}")
    for result in found.rules:
        if verbose or result.matches:
            print_line(f"  {result.rule}")
            print_line(f"    {result.reason}")
    if found.rule is None:
        print_line(f"  {found.reason}")
        if found.rules and not verbose:
            print_line("  --verbose shows why the rules do not match.")
    elif found.public:
        print_line("  Shared caches may keep it for everybody (cache:public).")


def _principal(
    subject: str | None, groups: tuple[str, ...], claims: tuple[str, ...], kind: str | None, grants: tuple[Any, ...]
) -> Principal:
    from ..identity.principal import ANONYMOUS, Principal  # noqa: PLC0415 (imports zope, which --help does not need)

    if subject is None and kind is None:
        if groups or claims or grants:
            raise click.UsageError("--group, --claim and --grant need --as: a request without credentials has none.")
        return ANONYMOUS
    if subject == "" or kind in (_NOBODY, ""):
        raise click.UsageError("Leave out --as and --kind for a request without credentials.")
    kind = kind or "token"
    return Principal(
        subject or "",
        kind,
        groups=frozenset(groups),
        claims=_claims(claims),
        grants=tuple(_grant(kind, *grant) for grant in grants) or None,
    )


def _claims(texts: tuple[str, ...]) -> dict[str, object]:
    found: dict[str, list[object]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--claim {text}: write NAME=VALUE, as in --claim tenant=acme.")
        try:
            decoded = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            decoded = value
        found.setdefault(name, []).append(decoded)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _grant(kind: str, operations: str, name: str) -> Grant:
    from ..errors import InvalidName  # noqa: PLC0415 (as above)
    from ..identity.operations import expand  # noqa: PLC0415 (as above)
    from ..identity.patterns import parse_plain  # noqa: PLC0415 (as above)
    from ..identity.principal import Grant  # noqa: PLC0415 (as above)

    is_name = kind == _SIGNED_URL
    try:
        if not is_name:
            parse_plain(name)
        return Grant(expand(operations.split(",")), name, literal=is_name)
    except (ValueError, InvalidName) as error:
        raise click.UsageError(f"--grant {operations} {name}: {error}") from None


def _checked_name(operation: str, name: str | None, is_pattern: bool) -> str:
    """Return the name without slashes at its ends."""
    from ..errors import InvalidName  # noqa: PLC0415 (as above)
    from ..identity.patterns import parse_plain  # noqa: PLC0415 (as above)
    from ..protocol.names import RESERVED_PREFIX, NameLimits, check_name  # noqa: PLC0415 (as above)

    if operation == ADMIN:
        if name is not None or is_pattern:
            raise click.UsageError("admin is about the whole server: leave out NAME.")
        return ""
    if name is None:
        raise click.UsageError("Give NAME, the name of a stream.")
    try:
        if is_pattern:
            parse_plain(name)
        elif not (operation == SUBSCRIBE and name.startswith(RESERVED_PREFIX)):
            # The limits are those of the longest name that any settings allow.
            check_name(name, NameLimits(name_bytes=65_536, segments=1_024))
    except InvalidName as error:
        raise click.UsageError(f"NAME {name}: {error}") from None
    return name


def _settings(files: SettingsFiles) -> Sections:
    # What the settings are warned of otherwise says nothing about the decision.
    try:
        return load(files.profile, files.config, os.environ, files.config_dir).settings
    except ConfigError as error:
        raise _NoDecision(f"[{error.phase}] {error}", label="") from None


def _authorize(
    settings: Sections | None,
    rules_file: str | None,
    principal: Principal,
    operation: str,
    name: str,
    is_pattern: bool,
) -> Authorization:
    from ..config.auth_rules import has_access_control  # noqa: PLC0415 (as above)
    from ..identity.explanation import explain  # noqa: PLC0415 (as above)

    def result(allowed: bool, reason: str) -> Authorization:
        return Authorization(allowed, principal.subject, principal.kind, operation, name, None, reason, False, [])

    if settings is not None and not has_access_control(settings):
        if operation != ADMIN:
            return result(True, "The server is open: auth.methods and auth.rules are not set, so nothing is denied.")
        return result(
            False,
            "The server is open, so no rule is about admin: admin.token_file decides about the pages for operators, or "
            "the address from which they are asked for.",
        )
    if settings is not None and principal.kind == _NOBODY and not settings.auth.allow_anonymous:
        return result(False, "auth.allow_anonymous is false: requests without credentials are refused, with 401.")
    policy = _policy(settings, rules_file)
    for warning in policy.warnings:
        note(f"Warning: {warning}")
    decision = (policy.covers if is_pattern else policy.decide)(principal, operation, name)
    results = list(explain(policy, principal, operation, name, is_pattern))
    return Authorization(
        decision.allowed,
        principal.subject,
        principal.kind,
        operation,
        name,
        decision.rule,
        decision.reason,
        decision.public,
        results,
    )


def _policy(settings: Sections | None, rules_file: str | None) -> Policy:
    from ..identity.policy import parse_rules  # noqa: PLC0415 (as above)
    from ..identity.rules import RuleError  # noqa: PLC0415 (as above)
    from ..identity.rules_file import RulesFileError, load_rules  # noqa: PLC0415 (as above)

    label = "--rules-file"
    if settings is not None:
        rules_file, label = settings.auth.rules_file, "auth.rules_file"
    try:
        if rules_file is None:
            return parse_rules(settings.auth.rules if settings is not None else (), "auth.rules")
        return load_rules(rules_file)
    except RulesFileError as error:
        raise _NoDecision(str(error), label) from None
    except RuleError as error:
        raise _NoDecision(f"rule {error.line}: {error.sentence}", error.source) from None
