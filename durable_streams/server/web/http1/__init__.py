"""HTTP/1.1 connections of the daemon: framing by llhttp, turns of requests, back-pressure of answers."""
