"""Ordinary tasks, and three whose ends start others."""

from celery import shared_task, signals
from celery.exceptions import Ignore

from shop.notes import note


@shared_task
def price(item, count):
    note("ran", f"price/{item}")
    return {"cents": 250 * count}


@shared_task(bind=True, max_retries=3)
def fetch(self, page):
    if self.request.retries < 2:
        raise self.retry(exc=ConnectionError(f"page {page} is not there yet"), countdown=0)
    note("ran", f"fetch/{page}")
    return {"tries": self.request.retries + 1}


@shared_task
def refuse(item):
    note("ran", f"refuse/{item}")
    raise ValueError(f"no {item} today")


@shared_task
def leave(item):
    note("ran", f"leave/{item}")
    raise Ignore


@shared_task(bind=True)
def delegate(self, item):
    return self.replace(price.s(item, 1))


@shared_task
def order(item):
    """Its receipt is printed by what hears of its end."""
    note("ran", f"order/{item}")
    return item


@shared_task
def print_receipt(item):
    note("ran", f"receipt/{item}")
    if item == "gin":
        raise RuntimeError("the printer is out of paper")


@signals.task_postrun.connect(sender=order, weak=False)
def on_order(retval=None, **kwargs):
    print_receipt.delay(retval)


@shared_task
def stock(item):
    note("ran", f"stock/{item}")
    return item


@signals.task_success.connect(sender=stock, weak=False)
def on_stock(result=None, **kwargs):
    print_receipt.delay(result)
