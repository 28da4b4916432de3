"""A headless Chromium on the status page of one sidecar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP, PHONE = (1280, 900), (390, 844)


@contextmanager
def browser(program: Path) -> Iterator[Browser]:
    """A browser, closed at the end."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(program), args=list(FLAGS))
        try:
            yield chromium
        finally:
            chromium.close()


class Complaints(list[str]):
    """What the page's console and its policy said against it, and every address it asked that is not the sidecar's."""


@contextmanager
def opened(
    chromium: Browser,
    port: int,
    *,
    size: tuple[int, int] = DESKTOP,
    scheme: Literal["light", "dark"] = "light",
    credentials: tuple[str, str] | None = None,
) -> Iterator[tuple[Page, Complaints]]:
    """The page after its first news by server-sent events."""
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        http_credentials=None if credentials is None else {"username": credentials[0], "password": credentials[1]},
    )
    page, complaints = context.new_page(), Complaints()
    home = f"http://127.0.0.1:{port}/"
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request", lambda request: None if request.url.startswith((home, "data:")) else complaints.append(request.url)
    )
    try:
        page.goto(home)
        page.wait_for_selector("#live[data-live=yes]")
        yield page, complaints
    finally:
        context.close()


def conditions(page: Page) -> list[str]:
    """What the page says is so, the gravest first."""
    script = "all => all.map(each => each.dataset.condition)"
    found: list[str] = page.eval_on_selector_all("[data-condition]", script)
    return found


def wait_for_condition(page: Page, condition: str) -> None:
    """Returns when the page's verdict is this one."""
    page.wait_for_selector(f"#verdict[data-condition={condition}]", timeout=20_000)
