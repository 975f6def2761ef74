"""Write an answer to a stream, token by token, as a language model does: ``python3 produce.py``."""

import json
import re
import time
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

URL = "http://localhost:4437/v1/stream/answers/1"

#: What the model says. Put your model in the place of this text: all that matters here is that tokens come one by one.
ANSWER = """A durable stream is a list of messages at a URL. Whoever writes appends to it, and whoever reads begins at \
an offset and then waits for more. The server stores the messages, so a reader that was away misses nothing: it asks \
for what comes after its last offset. Reload this page while you read this sentence, close it, or open it on another \
machine, and the answer is whole, without a word missing and without a word twice."""


def send(method: str, body: bytes = b"", **headers: str) -> None:
    """Send a request, again while there is no answer or a temporary refusal."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    while True:
        try:
            with urlopen(Request(URL, data=body, method=method, headers=names), timeout=30):
                return
        except HTTPError as refused:
            if refused.code != 503:
                raise SystemExit(f"{method} {URL}: {refused.read().decode()}") from None
        except (URLError, OSError) as error:
            print(f"no answer, again in a second: {error}")
        time.sleep(1)


def main() -> None:
    """Create the stream, append each token, and close the stream."""
    send("PUT", Content_Type="application/json")
    for number, token in enumerate(re.findall(r"\S+\s*", ANSWER)):
        # The server stores each Producer-Seq once, so a token that is sent again is not stored again.
        send(
            "POST",
            json.dumps({"token": token}).encode(),
            Content_Type="application/json",
            Producer_Id="model",
            Producer_Epoch="0",
            Producer_Seq=str(number),
        )
        print(token, end="", flush=True)
        time.sleep(0.1)
    send("POST", Stream_Closed="true")
    print()


if __name__ == "__main__":
    main()
