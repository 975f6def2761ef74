"""Challenges: the values of WWW-Authenticate."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.challenges import bearer_challenge, invalid_request, invalid_token

#: RFC 6750 section 3: what error_description may have.
DESCRIPTION = re.compile(r'Bearer realm="durable-streams", error="invalid_token", error_description="([ !#-\[\]-~]*)"')


class ChallengeTests(SynchronousTestCase):
    @given(st.text(max_size=300))
    def test_any_sentence_becomes_a_value_that_a_header_may_have(self, sentence: str) -> None:
        found = DESCRIPTION.fullmatch(bearer_challenge("invalid_token", sentence))
        assert found is not None
        self.assertLessEqual(len(found[1]), 200)

    def test_a_plain_sentence_stays_as_it_is(self) -> None:
        found = DESCRIPTION.fullmatch(bearer_challenge("invalid_token", "The token has expired."))
        assert found is not None
        self.assertEqual("The token has expired.", found[1])

    def test_errors_have_the_sentence_in_their_challenge(self) -> None:
        for make, code in ((invalid_token, "invalid_token"), (invalid_request, "invalid_request")):
            error = make("Send another one.")
            self.assertEqual("Send another one.", str(error))
            self.assertIn(f'error="{code}", error_description="Send another one."', error.challenge)
