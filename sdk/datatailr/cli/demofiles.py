"""The files that `datatailr init-demo` writes: one of every kind of job, without anything to install."""

from __future__ import annotations

import json
from dataclasses import dataclass
from textwrap import dedent
from typing import Final


@dataclass(frozen=True)
class DemoFile:
    """One file: what it shows, and its whole text."""

    what: str
    text: str


def _python(text: str) -> str:
    return dedent(text).lstrip()


_DEPLOY: Final = _python(
    '''
    # Run it:  python deploy.py            runs the workflow here, on this platform
    #          python deploy.py --local    runs it in this process, without a platform
    #          python deploy.py service    saves the service; likewise app, addin, notebook
    """Hands the jobs of the package `demo` to the platform."""

    import sys
    from pathlib import Path

    from datatailr import App, ExcelAddin, Service

    from demo.addin import __excel_main__
    from demo.dashboard import serve_page
    from demo.flow import word_count
    from demo.service import serve

    NOTEBOOK = str(Path(__file__).parent / "demo" / "notebook.ipynb")


    def jobs():
        """The definitions of everything but the workflow, by the word that names them."""
        return {
            "service": Service("Demo Service", serve),
            "app": App("Demo App", serve_page),
            "addin": ExcelAddin("Demo Addin", __excel_main__),
            "notebook": App("Demo Notebook", NOTEBOOK, python_requirements=["voila", "jupyter"]),
        }


    def main():
        wanted = sys.argv[1:] or ["workflow"]

        for word in wanted:
            if word == "--local":
                word_count(local_run=True)
            elif word == "workflow":
                word_count()
            elif word in jobs():
                succeeded, _ = jobs()[word].save()  # says itself what it did, or why not

                if not succeeded:
                    sys.exit(1)
            else:
                sys.exit(f"{word!r} is none of --local, workflow, {', '.join(jobs())}")


    if __name__ == "__main__":
        main()
    '''
)

_FLOW: Final = _python(
    '''
    # Run it:  python deploy.py
    """A workflow: four steps, two of them side by side, each in a process of its own."""

    from collections import Counter

    from datatailr import task, workflow

    TEXTS = {
        "sea": "the sea was calm and the wind was low and the night was long",
        "city": "the city was loud and the street was long and the light was low",
    }


    @task()
    def count(name):
        """How often each word occurs in a text."""
        words = Counter(TEXTS[name].split())
        print(f"{name}: {sum(words.values())} words")
        return words


    @task()
    def merge(first, second):
        """Both counts together."""
        return first + second


    @task()
    def report(words):
        """The most frequent words; the last line of the log is the answer."""
        best = words.most_common(3)
        print("most frequent:", ", ".join(f"{word} ({times})" for word, times in best))
        return best


    @workflow(name="Demo Workflow")
    def word_count():
        sea, city = count("sea").alias("count sea"), count("city").alias("count city")
        report(merge(sea, city))
    '''
)

_SERVICE: Final = _python(
    '''
    # Save it:  python deploy.py service
    # Run it here:  python -c "from demo.service import serve; serve(8080)"
    """A service: answers other jobs over HTTP. The platform calls the function with the port."""

    import json
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"path": self.path, "healthy": True}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


    def serve(port):
        with ThreadingHTTPServer(("", int(port)), Answers) as server:
            server.serve_forever()
    '''
)

_DASHBOARD: Final = _python(
    '''
    # Save it:  python deploy.py app
    # Run it here:  python -c "from demo.dashboard import serve_page; serve_page()"
    """An app: a page for people, at port 8080. Any web framework will do; this one needs none."""

    from datetime import datetime
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    PAGE = "<!doctype html><title>Demo</title><h1>It runs</h1><p>Rendered at {now}.</p>"


    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            body = PAGE.format(now=datetime.now().strftime("%H:%M:%S")).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


    def serve_page():
        with ThreadingHTTPServer(("0.0.0.0", 8080), Page) as server:
            server.serve_forever()
    '''
)

_ADDIN: Final = _python(
    '''
    # Save it:  python deploy.py addin
    # Try it here:  python -c "from demo.addin import compound; print(compound(100.0, 0.03, 10))"
    """An Excel add-in: functions that a sheet calls. They stay callable as plain Python."""

    from datatailr.excel import Addin

    addin = Addin("Demo", "Functions of the demo.")


    @addin.expose("What an amount grows to", help="Amount, yearly rate, years")
    def compound(amount: float, rate: float, years: int) -> float:
        return amount * (1 + rate) ** years


    def __excel_main__(port, ws_port):
        addin.run(port, ws_port)
    '''
)

_NOTEBOOK: Final = json.dumps(
    {
        "cells": [
            {
                "cell_type": "markdown",
                "id": "run",
                "metadata": {},
                "source": ["Save it:  `python deploy.py notebook`; open it here:  `jupyter lab demo`"],
            },
            {
                "cell_type": "code",
                "execution_count": None,
                "id": "words",
                "metadata": {},
                "outputs": [],
                "source": ["text = 'a notebook is an app, too'\n", "sorted(text.split(), key=len)"],
            },
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    },
    indent=1,
)

DEMO_FILES: Final[dict[str, DemoFile]] = {
    "deploy.py": DemoFile("hands them to the platform", _DEPLOY),
    "demo/__init__.py": DemoFile("the package", "# Run it:  python deploy.py\n"),
    "demo/flow.py": DemoFile("a workflow", _FLOW),
    "demo/service.py": DemoFile("a service", _SERVICE),
    "demo/dashboard.py": DemoFile("an app", _DASHBOARD),
    "demo/addin.py": DemoFile("an Excel add-in", _ADDIN),
    "demo/notebook.ipynb": DemoFile("a notebook", _NOTEBOOK + "\n"),
}
"""By path below the directory that is asked for."""
