"""A first workflow; `python examples/hello.py` deploys it, `hello(local_run=True)` runs it here."""

from datatailr import task, workflow


@task()
def greet(name):
    print(f"hello from a process of my own, {name}")
    return f"Hello, {name}!"


@task()
def count(greetings):
    return sum(len(greeting) for greeting in greetings)


@workflow(name="Hello")
def hello():
    count([greet("Ada"), greet("Grace")])


if __name__ == "__main__":
    hello()
