from notes.celery import app


@app.task
def write(name, text):
    app.storage.write(name, text)


@app.task
def measure(text):
    return len(text)
