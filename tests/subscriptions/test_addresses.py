"""Webhook URLs and addresses: compared with Python's ipaddress and the C library's parser."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.addresses import (
    MAX_URL_BYTES,
    Address,
    AddressPolicy,
    is_public,
    parse_address,
    parse_networks,
    parse_webhook_url,
)
from durable_streams.server.subscriptions.errors import WebhookUrlRejected

IPV4: Final = st.integers(0, 2**32 - 1).map(IPv4Address)
IPV6: Final = st.integers(0, 2**128 - 1).map(IPv6Address)

#: Refused networks, from which random addresses are drawn often enough.
IPV4_RANGES: Final = tuple(
    IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4"),
    )
)
IPV6_RANGES: Final = tuple(
    IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "fc00::/7", "fe80::/10")
)


def in_network(network: IPv4Network | IPv6Network) -> st.SearchStrategy[Address]:
    """Return addresses of a network, often its first and last."""
    first, last = int(network.network_address), int(network.broadcast_address)
    kind = type(network.network_address)
    return st.one_of(st.sampled_from([first, last]), st.integers(first, last)).map(kind)


#: What ipaddress calls global and we refuse: addresses of protocols, and multicast.
NOT_UNICAST: Final = (
    *(IPv4Network("192.0.0.0/24"), IPv4Network("224.0.0.0/4")),
    *(IPv6Network("2001::/23"), IPv6Network("ff00::/8"), IPv6Network("2002::/16")),
)


class PublicAddressTests(SynchronousTestCase):
    @given(st.one_of(IPV4, *(in_network(network) for network in IPV4_RANGES)))
    def test_ipv4_addresses_agree_with_ipaddress(self, address: Address) -> None:
        expected = address.is_global and not address.is_multicast and address not in IPv4Network("192.0.0.0/24")
        self.assertEqual(expected, is_public(address))

    @given(st.one_of(IPV6, in_network(IPv6Network("2000::/3")), *(in_network(network) for network in IPV6_RANGES)))
    def test_a_public_ipv6_address_is_global_for_ipaddress(self, address: IPv6Address) -> None:
        if is_public(address):
            self.assertTrue(address.is_global)
            self.assertFalse(address.is_multicast)
        elif address.is_global and address in IPv6Network("2000::/3"):
            self.assertTrue(any(address in network for network in (*NOT_UNICAST, IPv6Network("3fff::/20"))))

    @given(st.one_of(IPV4, *(in_network(network) for network in IPV4_RANGES)))
    def test_mapped_and_nat64_addresses_count_as_the_address_inside(self, address: Address) -> None:
        for prefix in ("::ffff:0:0", "64:ff9b::"):
            outer = IPv6Address(int(IPv6Address(prefix)) + int(address))
            self.assertEqual(is_public(address), is_public(outer))

    def test_the_borders_of_each_refused_network(self) -> None:
        for network in IPV4_RANGES:
            self.assertFalse(is_public(network.network_address), network)
            self.assertFalse(is_public(network.broadcast_address), network)
        for text in ("11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0"):
            self.assertTrue(is_public(ip_address(text)), text)
        for text in ("198.17.255.255", "198.20.0.0", "223.255.255.255", "126.255.255.255", "128.0.0.0", "1.1.1.1"):
            self.assertTrue(is_public(ip_address(text)), text)
        for text in ("2000::", "2001:200::", "2001:db7:ffff::", "2606:4700::1111", "3ffe::1", "3fff:1000::"):
            self.assertTrue(is_public(ip_address(text)), text)
        for text in ("::", "::1", "::10.0.0.1", "64:ff9b:1::1", "100::", "1fff::", "4000::", "fe80::1", "ff02::1"):
            self.assertFalse(is_public(ip_address(text)), text)

    def test_a_mapped_address_of_a_look_up_becomes_ipv4(self) -> None:
        self.assertEqual(IPv4Address("10.0.0.1"), parse_address("::ffff:10.0.0.1"))
        self.assertEqual(IPv6Address("64:ff9b::a00:1"), parse_address("64:ff9b::10.0.0.1"))


class WebhookUrlTests(SynchronousTestCase):
    def refused(self, text: str, part: str = "") -> None:
        """Assert that a URL is refused by the parser or the default policy, with a part of the message."""
        with self.assertRaises(WebhookUrlRejected, msg=text) as caught:
            AddressPolicy().check_url(parse_webhook_url(text))
        self.assertIn(part, str(caught.exception), text)

    def test_the_parts_of_a_url(self) -> None:
        url = parse_webhook_url("HTTPS://Worker.Example.:8443/Hook/a%20b?key=Secret&x=/?")
        self.assertEqual(("https", "worker.example", 8443), (url.scheme, url.host, url.port))
        self.assertEqual("https://worker.example:8443/Hook/a%20b?key=Secret&x=/?", url.text)
        self.assertEqual("https://worker.example:8443/Hook/a%20b", url.shown)
        self.assertEqual("https://worker.example/", parse_webhook_url("https://worker.example").text)
        self.assertEqual("https://worker.example/?a", parse_webhook_url("https://worker.example:443?a").text)
        self.assertEqual("https://[2606:4700::1]:1/", parse_webhook_url("https://[2606:4700:0::1]:1").text)

    def test_international_names_and_paths_become_ascii(self) -> None:
        url = parse_webhook_url("https://Bücher.example/späti?ü")
        self.assertEqual("https://xn--bcher-kva.example/sp%C3%A4ti?%C3%BC", url.text)
        self.assertEqual("xn--bcher-kva.example", parse_webhook_url("https://xn--bcher-kva.example/").host)

    def test_malformed_urls_are_refused(self) -> None:
        for text, part in (
            ("", "absolute URL"),
            ("/hook", "absolute URL"),
            ("worker.example/hook", "absolute URL"),
            ("ftp://worker.example/", "absolute URL"),
            ("https:/worker.example/", "absolute URL"),
            ("https:worker.example", "absolute URL"),
            ("https://", "no host"),
            ("https://./", "no host"),
            ("https:///hook", "no host"),
            ("https://:443/", "no host"),
            ("https://user@worker.example/", "user name"),
            ("https://user:password@worker.example/", "user name"),
            ("https://@worker.example/", "user name"),
            ("https://worker.example/#part", "fragment"),
            ("https://worker.example/#", "fragment"),
            ("https://worker.example:0/", "between 1 and 65535"),
            ("https://worker.example:/", "between 1 and 65535"),
            ("https://worker.example:65536/", "between 1 and 65535"),
            ("https://worker.example:100000000000000000000/", "between 1 and 65535"),
            ("https://worker.example:80:80/", "no valid host and port"),
            ("https://worker.example:\u0661/", "no valid host and port"),
            ("https://worker.example\\@10.0.0.1/", "backslashes"),
            ("https://worker.example/a b", "spaces"),
            (" https://worker.example/", "spaces"),
            ("https://worker.example/\n", "spaces"),
            ("https://worker.example/\r\nHost: x", "spaces"),
            ("https://worker.example/\x00", "spaces"),
            ("https://worker\t.example/", "spaces"),
            ("https://worker.example/\u2028", "spaces"),
            ("https://worker.example/\ud800", "not Unicode"),
            ("https://worker%2eexample/", "no valid host name"),
            ("https://worker..example/", "no valid host name"),
            ("https://.worker.example/", "no valid host name"),
            ("https://-worker.example/", "no valid host name"),
            ("https://worker-.example/", "no valid host name"),
            (f"https://{'a' * 64}.example/", "no valid host name"),
            (f"https://{'a.' * 127}example/", "no valid host name"),
            ("https://wor,ker.example/", "no valid host name"),
            ("https://my_worker.example/", "IDNA"),
            ("https://xn--a.example/", "international"),
            ("https://\u202eexample/", "international"),
            ("https://[::1/", "no valid host and port"),
            ("https://[]/", "no IPv6"),
            ("https://[1.2.3.4]/", "no IPv6"),
            ("https://[fe80::1%25eth0]/", "zone"),
            ("https://[::1]x/", "no valid host and port"),
            ("https://::1/", "no valid host and port"),
        ):
            self.refused(text, part)

    def test_addresses_must_be_strict_dotted_quads(self) -> None:
        for host in (
            *("2130706433", "0x7f.1", "0x7f000001", "127.1", "127.0.1", "0177.0.0.1", "017700000001", "0x7F.0.0.1"),
            *("127.0.0.01", "256.0.0.1", "1.2.3.4.5", "127.0.0.0x1", "example.1", "a.0x", "0", "00.0.0.0", "0x"),
            *("127.0.0.1..", "\uff11\uff12\uff17.1", "127\u30020.1", "2130706433."),
        ):
            self.refused(f"https://{host}/")
            self.refused(f"http://{host}:80/hook")

    def test_private_addresses_are_refused_in_each_spelling(self) -> None:
        for host in (
            *("127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.0.1", "0.0.0.0", "127.0.0.1.", "255.255.255.255"),
            *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::10.0.0.1]", "[fd00:ec2::254]"),
            *("[fe80::1]", "[2002:7f00:1::]", "[::127.0.0.1]", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021"),
        ):
            self.refused(f"https://{host}/", "no public address")
            self.refused(f"http://{host}/")

    def test_a_url_of_more_than_2048_bytes_is_refused(self) -> None:
        base = "https://worker.example/"
        longest = base + "a" * (MAX_URL_BYTES - len(base))
        self.assertEqual(longest, parse_webhook_url(longest).text)
        self.refused(longest + "a", "longer than 2048 bytes")
        self.refused(longest[:-1] + "ü", "longer than 2048 bytes")

    @given(st.text(st.sampled_from("0123456789abcdefxX.-:[]%@/\\ _\u3002\uff11"), min_size=1, max_size=20))
    @example("127.1")
    @example("0x7f.1")
    @example("1.2.3.0x4")
    def test_no_accepted_name_is_an_address_for_the_c_library(self, host: str) -> None:
        try:
            url = parse_webhook_url(f"https://{host}/")
        except WebhookUrlRejected:
            return
        if url.literal is None:
            self.assertRaises(OSError, socket.inet_aton, url.host)
            self.assertRaises(OSError, socket.inet_pton, socket.AF_INET6, url.host)
        else:
            family = socket.AF_INET if isinstance(url.literal, IPv4Address) else socket.AF_INET6
            self.assertEqual(url.literal.packed, socket.inet_pton(family, url.host))
            self.assertTrue(family == socket.AF_INET6 or socket.inet_aton(url.host) == url.literal.packed)

    @given(st.text(max_size=40))
    def test_a_url_is_parsed_or_refused_with_a_sentence(self, text: str) -> None:
        for url in (text, "https://" + text, "https://worker.example/" + text):
            try:
                parsed = parse_webhook_url(url)
            except WebhookUrlRejected as error:
                self.assertTrue(str(error).endswith("."), error)
            else:
                self.assertTrue(parsed.text.isascii() and parsed.text.isprintable() and " " not in parsed.text)
                self.assertEqual(parsed, parse_webhook_url(parsed.text))

    @given(IPV4, IPV6)
    def test_literal_addresses_are_parsed_as_ipaddress_does(self, four: IPv4Address, six: IPv6Address) -> None:
        self.assertEqual(four, parse_webhook_url(f"https://{four}/").literal)
        self.assertEqual(six, parse_webhook_url(f"https://[{six.exploded}]/").literal)


PUBLIC: Final = ip_address("93.184.216.34")
PRIVATE: Final = ip_address("10.1.2.3")


class AddressPolicyTests(SynchronousTestCase):
    def allows(self, policy: AddressPolicy, text: str, *addresses: Address) -> bool:
        """Return whether a policy allows a URL whose host has addresses."""
        url = parse_webhook_url(text)
        try:
            policy.check_url(url)
            policy.check_addresses(url, addresses or ((url.literal,) if url.literal else ()))
        except WebhookUrlRejected:
            return False
        return True

    def test_by_default_only_https_to_public_addresses_is_allowed(self) -> None:
        policy = AddressPolicy()
        self.assertTrue(self.allows(policy, "https://worker.example/", PUBLIC))
        self.assertTrue(self.allows(policy, "https://93.184.216.34/"))
        for text in ("http://worker.example/", "http://93.184.216.34/"):
            self.assertFalse(self.allows(policy, text, PUBLIC))
        for text in ("http://localhost/", "http://127.0.0.1/", "https://localhost/"):
            self.assertFalse(self.allows(policy, text, ip_address("127.0.0.1")))

    def test_one_bad_address_refuses_all_and_none_is_refused(self) -> None:
        url = parse_webhook_url("https://worker.example/hook?key=secret")
        with self.assertRaises(WebhookUrlRejected) as caught:
            AddressPolicy().check_addresses(url, (PUBLIC, PRIVATE, PUBLIC))
        self.assertIn("worker.example (10.1.2.3), which is no public address", str(caught.exception))
        self.assertNotIn("secret", str(caught.exception))
        with self.assertRaises(WebhookUrlRejected):
            AddressPolicy().check_addresses(url, ())

    def test_insecure_webhooks_are_allowed_for_this_machine_only(self) -> None:
        policy, here = AddressPolicy(insecure_loopback=True), ip_address("127.0.0.1")
        self.assertTrue(self.allows(policy, "http://localhost:3000/hook", here, ip_address("::1")))
        self.assertTrue(self.allows(policy, "http://127.0.0.9:3000/hook"))
        self.assertFalse(self.allows(policy, "http://localhost/", PRIVATE))
        self.assertFalse(self.allows(policy, "http://localhost/", here, PRIVATE))
        self.assertFalse(self.allows(policy, "http://localhost/", PUBLIC))
        self.assertFalse(self.allows(policy, "https://localhost/", here))
        self.assertFalse(self.allows(policy, "https://127.0.0.1/"))
        for text in ("http://127.0.1.1/", "http://[::1]/", "http://10.0.0.1/hook", "http://[::ffff:127.0.0.1]/"):
            self.assertFalse(self.allows(policy, text), text)
        for text in ("http://worker.example/", "http://a.localhost/", "http://localhost.example/"):
            self.assertFalse(self.allows(policy, text, here), text)

    def test_listed_networks_are_allowed_by_https(self) -> None:
        policy = AddressPolicy(networks=parse_networks(["10.0.0.0/8", "fd00::/16"]))
        self.assertTrue(self.allows(policy, "https://worker.cluster/", PRIVATE, ip_address("fd00::1")))
        self.assertTrue(self.allows(policy, "https://worker.cluster/", PRIVATE, PUBLIC))
        self.assertTrue(self.allows(policy, "https://[64:ff9b::10.0.0.1]/"))
        self.assertFalse(self.allows(policy, "https://worker.cluster/", ip_address("192.168.0.1"), PRIVATE))
        self.assertFalse(self.allows(policy, "https://[fd01::1]/"))
        self.assertFalse(self.allows(policy, "http://worker.cluster/", PRIVATE))
        self.assertFalse(self.allows(policy, "http://10.1.2.3/"))

    def test_listed_http_networks_are_allowed_by_both_schemes(self) -> None:
        policy = AddressPolicy(http_networks=parse_networks(["10.0.0.0/8"]))
        for scheme in ("http", "https"):
            self.assertTrue(self.allows(policy, f"{scheme}://worker.cluster/", PRIVATE))
            self.assertTrue(self.allows(policy, f"{scheme}://10.1.2.3/"))
        self.assertTrue(self.allows(policy, "http://my_worker/", PRIVATE))
        self.assertFalse(self.allows(policy, "http://worker.cluster/", PRIVATE, PUBLIC))
        self.assertFalse(self.allows(policy, "http://worker.example/", PUBLIC))

    def test_networks_are_refused_that_would_have_no_effect_or_are_malformed(self) -> None:
        for text in ("10.0.0.1/8", "10.0.0.0/33", "worker", "::ffff:10.0.0.0/104", "64:ff9b::/96"):
            self.assertRaises(ValueError, parse_networks, [text])
        self.assertEqual((), parse_networks([]))
