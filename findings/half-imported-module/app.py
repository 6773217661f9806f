import threading


def background():
    import slow  # noqa: F401  an import that another thread is in the middle of while gunicorn forks


threading.Thread(target=background, daemon=True).start()


def app(environ, start_response):
    import slow

    start_response("200 OK", [])
    return [slow.ANSWER]
