"""Who may do what: credentials, principals, and the rules about them.

:mod:`.control` has both for a running server: :mod:`.authentication` makes a :mod:`.principal` of what a request
presents (:mod:`.credentials`, :mod:`.methods`), and the :mod:`.policy` decides what the principal may do.

- Checkers of credentials: :mod:`.tokens`, :mod:`.jwt`, :mod:`.certificates`, :mod:`.proxy_identity`,
  :mod:`.signed_url_checker`.
- Rules: :mod:`.rules` reads a line, :mod:`.conditions` is about principals, :mod:`.patterns` about names, and
  :mod:`.matching` indexes the patterns of all rules. :mod:`.coverage` compares patterns with each other, for
  subscriptions, and for :mod:`.unreachable` rules. :mod:`.explanation` tells operators why a rule does not match.
- Limits: :mod:`.quotas` on :mod:`.rates`.
"""
