"""Pages as a browser shows them: headless Chromium, what it asks for, and what must never run in it."""

import json
from pathlib import Path

from once import HANG
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
ENDS = ("Network.loadingFinished", "Network.loadingFailed")  # of a request, as the browser notes them
HIT = "window.hit=1"
PAYLOADS = [
    f"<script>{HIT}</script>",
    f"<img src=x onerror={HIT}>",
    f"<svg onload={HIT}>",
    f"<svg><script>{HIT}</script></svg>",
    f'"><script>{HIT}</script>',
    f"'><script>{HIT}</script>",
    f'" onmouseover="{HIT}" autofocus onfocus="{HIT}',
    f"' onload='{HIT}",
    f"</style><script>{HIT}</script>",
    f"</title><script>{HIT}</script>",
    f"--><script>{HIT}</script><!--",
    f'<a href="javascript:{HIT}">x</a>',
    f'<iframe srcdoc="<script>parent.{HIT}</script>"></iframe>',
    f'<iframe src="javascript:parent.{HIT}"></iframe>',
    f"<details open ontoggle={HIT}>",
    f'<meta http-equiv="refresh" content="0;url=javascript:{HIT}">',
    f'<object data="data:text/html,<script>{HIT}</script>"></object>',
    f"{{{{ ''.__class__ }}}}{{% set x = '<script>{HIT}</script>'|safe %}}{{{{ x }}}}",
    f"&lt;script&gt;{HIT}&lt;/script&gt;",
    f"<scr\x00ipt>{HIT}</script>\u2028<base href=//example.org>",
]


def visit(browser, file: Path, width: int = 1280) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(file.as_uri())


def requests(browser) -> list[str]:
    """What the page has asked for, data URIs aside, and the policy has let pass; waits until all of it has ended.

    The browser's notes come when they come: that a request was blocked, for one, some time after the request.
    """
    events = []

    def sent() -> dict[str, str]:
        asked = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        urls = {params["requestId"]: params["request"]["url"] for params in asked}
        return {name: url for name, url in urls.items() if not url.startswith("data:")}

    def have_ended(browser) -> bool:
        events.extend(json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
        ended = {event["params"]["requestId"] for event in events if event["method"] in ENDS}
        return sent().keys() <= ended and any(event["method"] == "Page.loadEventFired" for event in events)

    WebDriverWait(browser, HANG).until(have_ended)
    blocked = {event["params"]["requestId"] for event in events if event["params"].get("blockedReason") == "csp"}
    return [url for name, url in sent().items() if name not in blocked]


def has_run(browser) -> bool:
    return browser.execute_script("return window.hit !== undefined")
